package render

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
)

// Whatever happened to a packet is drawn: every drop, every answer that was rejected and
// every reset of every exchange of a trace, at its time, after what was seen before it and
// before what was seen later.
func TestWhatHappenedIsDrawnWhereItDid(t *testing.T) {
	traces := recordedTraces(t)
	for _, w := range waterfalls {
		traces = append(traces, w.trace())
	}
	happened := 0
	for _, tr := range traces {
		drawn := tr
		if tr.Role == trace.RoleUpstream {
			drawn = withoutLookup(tr)
		}
		s := &story{trace: drawn, places: newPlaces(drawn), labels: 60}
		s.tell()
		var want, got []time.Duration
		eachExchange(drawn, func(e *trace.Exchange) {
			for _, x := range events(e) {
				want = append(want, s.since(&e.Header)+x.at.Duration())
			}
		})
		latest := time.Duration(0)
		for _, r := range s.rows {
			if r.section {
				latest = r.from
			}
			if r.mark == markDrop {
				got = append(got, r.from)
				if r.from < latest {
					t.Errorf("%s %s: %q at %s is drawn after what was seen at %s", tr.QName, tr.QType, r.label, r.from, latest)
				}
			}
			if r.mark == markDrop || r.mark == markQuery || r.mark == markResponse {
				latest = max(latest, r.from)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s %s: marked at %s, want %s", tr.QName, tr.QType, got, want)
		}
		happened += len(want)
	}
	if happened < 30 {
		t.Errorf("nothing much happened: %d", happened)
	}
}

// What the kernel kept for a while before it dropped it waited in vain: that is drawn, up to
// the drop.
func TestWhatIsHeldIsDrawnAsAWait(t *testing.T) {
	held := 0
	for _, tr := range recordedTraces(t) {
		if tr.Exchange == nil || len(tr.Exchange.Drops) != 1 || tr.Exchange.Transmissions != 1 {
			continue
		}
		d := &tr.Exchange.Drops[0]
		last, ok := tr.Exchange.Last(d.Message, d.Offset)
		if !ok || d.Offset-last.Offset < trace.Seconds(queueShown) {
			continue
		}
		held++
		s := &story{trace: tr, places: newPlaces(tr), labels: 60}
		s.tell()
		if !slices.ContainsFunc(s.rows, func(r row) bool {
			return r.mark == markSilence && r.from == last.Offset.Duration() && r.to == d.Offset.Duration()
		}) {
			t.Errorf("%s %s: no wait from %s to its drop at %s", tr.QName, tr.QType, last.Offset.Duration(), d.Offset.Duration())
		}
	}
	if held < 2 {
		t.Errorf("only %d were held", held)
	}
}

func eachExchange(t *trace.Trace, use func(*trace.Exchange)) {
	if t.Exchange != nil {
		use(t.Exchange)
	}
	var upstreams func([]trace.Upstream)
	upstreams = func(all []trace.Upstream) {
		for i := range all {
			for _, e := range all[i].Exchanges() {
				use(e)
			}
			upstreams(all[i].Upstreams)
		}
	}
	upstreams(t.Upstreams)
}

// Of a wait in vain the bar is the longest of all that are no whole of others, also where
// silence is cut out.
func TestTheWaitIsTheLongestBar(t *testing.T) {
	waits := 0
	for _, tr := range recordedTraces(t) {
		drawn := tr
		if tr.Role == trace.RoleUpstream {
			drawn = withoutLookup(tr)
		}
		s := &story{trace: drawn, places: newPlaces(drawn), labels: 60}
		s.tell()
		for _, width := range []int{14, 26, 45} {
			sc := newScale(moments(s.rows), width)
			if len(sc.segments) == 1 {
				continue
			}
			columns := func(r row) int { left, right := sc.span(r.from, r.to); return right - left }
			longest := time.Duration(0)
			for _, r := range s.rows {
				if r.mark == markSilence || r.mark == markWork {
					longest = max(longest, r.to-r.from)
				}
			}
			for _, long := range s.rows {
				if long.note || long.mark != markSilence && (long.mark != markWork || long.to-long.from < longest) {
					continue
				}
				for _, r := range s.rows {
					if !r.note && r.mark != markNone && r.mark != markSpan && (long.to-long.from) > 2*(r.to-r.from) {
						waits++
						if columns(r) > columns(long) {
							t.Errorf("%s %s, %d columns: %q (%s) is longer than %q (%s)", tr.QName, tr.QType, width, r.label, r.to-r.from, long.label, long.to-long.from)
						}
					}
				}
			}
		}
	}
	if waits < 100 {
		t.Errorf("only %d bars were compared", waits)
	}
}

// recordedTraces are those of the faults that were recorded for the diagnosis.
func recordedTraces(t *testing.T) []*trace.Trace {
	t.Helper()
	paths, err := filepath.Glob("../diagnose/testdata/*.jsonl*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recorded cases: %v", err)
	}
	var all []*trace.Trace
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var in io.Reader = f
		if strings.HasSuffix(path, ".gz") {
			if in, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		a := assemble.New(assemble.Config{})
		for r := trace.NewReader(in); ; {
			rec, _, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			a.Add(rec)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, a.Flush()...)
	}
	return all
}
