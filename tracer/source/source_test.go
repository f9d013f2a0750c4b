package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/history"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func exchange(n int) *trace.Exchange {
	flow := trace.NewFlow(trace.TransportUDP, netip.MustParseAddrPort("10.244.0.4:50202"), uint16(n), 1, 1, []byte{0})
	at := start.Add(time.Duration(n) * time.Second)
	return &trace.Exchange{
		Header: trace.Header{V: trace.Version, Record: trace.KindExchange, Time: at, TraceID: trace.NewTraceID(at, flow), Flow: flow},
		DNS:    trace.DNS{QName: fmt.Sprintf("n%d.", n), QType: "A", Duration: trace.SecondsPtr(time.Millisecond)}, Outcome: trace.OutcomeAnswered,
	}
}

func query(n int) *trace.Query {
	e := exchange(n)
	q := &trace.Query{Header: e.Header, DNS: e.DNS, Outcome: trace.OutcomeAnswered}
	q.Record, q.Time = trace.KindQuery, q.Time.Add(time.Microsecond)
	return q
}

func traceOf(e *trace.Exchange, q *trace.Query, upstreams ...trace.Upstream) *trace.Trace {
	t := &trace.Trace{Header: e.Header, QName: e.QName, Exchange: e, Query: q, Upstreams: upstreams}
	t.Record = trace.KindTrace
	return t
}

// assembler makes a trace of every exchange, and none of anything else.
type assembler struct {
	added []trace.Record
	last  time.Time
}

func (a *assembler) Add(r trace.Record) { a.added = append(a.added, r) }

func (a *assembler) Advance(now time.Time) []*trace.Trace {
	if now.Before(a.last) {
		panic("time goes back")
	}
	a.last = now
	return nil
}

func (a *assembler) Flush() []*trace.Trace {
	var traces []*trace.Trace
	for _, r := range a.added {
		if e, ok := r.(*trace.Exchange); ok {
			traces = append(traces, traceOf(e, nil))
		}
	}
	return traces
}

func file(in string, stderr io.Writer, a *assembler) File {
	return File{Path: "-", Stdin: strings.NewReader(in), Stderr: stderr, Joining: joiningWith(a)}
}

func joiningWith(a *assembler) Joining {
	return Joining{
		Assemble: func() Assembler { return a },
		Diagnose: func(*trace.Trace) []trace.Finding { return []trace.Finding{{Code: "found"}} },
		Now:      func() time.Time { return start.Add(10 * time.Second) },
	}
}

func lines(records ...trace.Record) string {
	var b []byte
	for _, r := range records {
		b = append(r.AppendJSON(b), '\n')
	}
	return string(b)
}

// collect reads a source and lists name and findings of what it gives.
func collect(t *testing.T, s Source, r Request) string {
	t.Helper()
	var got []string
	read, err := s.Each(t.Context(), r, func(l Lookup) error {
		text := l.Trace.QName
		for _, f := range l.Trace.Diagnosis {
			text += f.Code
		}
		got = append(got, text)
		if again, err := trace.Decode(l.Line); err != nil || again.Head().TraceID != l.Trace.TraceID {
			t.Errorf("line of %s: %v", l.Trace.QName, err)
		}
		return nil
	})
	if err != nil || read.Traces != len(got) {
		t.Fatalf("%d traces read, %d given, %v", read.Traces, len(got), err)
	}
	return strings.Join(got, " ")
}

func TestFile(t *testing.T) {
	chain := traceOf(exchange(1), query(1), trace.Upstream{Exchange: exchange(2), Join: trace.JoinExact, Query: query(2),
		Upstreams: []trace.Upstream{{Exchange: exchange(3), Join: trace.JoinInferred}}})
	chain.Diagnosis = []trace.Finding{{Code: "as-it-is"}}
	for _, tc := range []struct {
		name    string
		in      string
		request Request
		want    string
		added   int
	}{
		{"trace", lines(chain), Request{}, "n1.as-it-is", 0},
		{"records before their trace", lines(exchange(3), query(2), exchange(2), query(1), exchange(1), chain), Request{}, "n1.as-it-is", 0},
		{"records after their trace", lines(chain, exchange(1), exchange(2), exchange(3), query(1), query(2)), Request{}, "n1.as-it-is", 0},
		{"records alone, out of order", lines(exchange(5), query(4), exchange(4)), Request{}, "n4.found n5.found", 3},
		{"both", lines(exchange(4), chain), Request{}, "n1.as-it-is n4.found", 1},
		{"twice", lines(exchange(4), exchange(4)), Request{}, "n4.found", 1},
		// An upstream may be asked for another name, and a finding rest on other lookups.
		{"names of traces", lines(exchange(4), exchange(5), chain), Request{Names: func(n string) bool { return n == "n5." }}, "n4.found n5.found", 2},
		{"since", lines(exchange(4), exchange(5), chain), Request{Since: 5 * time.Second}, "n5.found", 2},
		{"empty", "\n", Request{}, "", 0},
	} {
		a := &assembler{}
		var stderr bytes.Buffer
		if got := collect(t, file(tc.in, &stderr, a), tc.request); got != tc.want || stderr.Len() > 0 {
			t.Errorf("%s: got %q, want %q; %s", tc.name, got, tc.want, &stderr)
		}
		if len(a.added) != tc.added {
			t.Errorf("%s: %d records assembled, want %d", tc.name, len(a.added), tc.added)
		}
	}
}

func TestFileNamesBrokenLines(t *testing.T) {
	for _, tc := range []struct {
		broken int
		want   []string
	}{
		{1, []string{"dnstrace: standard input: line 1: not a dnstrace record: expected a JSON object; skipped\n"}},
		{3, []string{"line 3: ", "standard input: 3 lines were no records and were skipped\n"}},
		{50, []string{"line 10: ", "50 lines were no records and were skipped; the first 10 are named above\n"}},
	} {
		var stderr bytes.Buffer
		in := strings.Repeat("[INFO] plugin/reload\n", tc.broken) + lines(exchange(4))
		if got := collect(t, file(in, &stderr, &assembler{}), Request{}); got != "n4.found" {
			t.Errorf("%d: %q", tc.broken, got)
		}
		for _, want := range tc.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%d: %q is not in:\n%s", tc.broken, want, &stderr)
			}
		}
		if n := strings.Count(stderr.String(), "\n"); n > maxBadLines+1 {
			t.Errorf("%d: %d lines of warnings", tc.broken, n)
		}
	}
}

func TestFileStops(t *testing.T) {
	in := lines(traceOf(exchange(1), nil), traceOf(exchange(2), nil))
	boom := errors.New("boom")
	for _, give := range []error{Stop, boom} {
		calls := 0
		_, err := file(in, io.Discard, &assembler{}).Each(t.Context(), Request{}, func(Lookup) error {
			calls++
			return give
		})
		if calls != 1 || errors.Is(give, Stop) != (err == nil) || err != nil && !errors.Is(err, boom) {
			t.Errorf("%v: %d calls, %v", give, calls, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := file(in, io.Discard, &assembler{}).Each(ctx, Request{}, func(Lookup) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFilePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	f := file("", io.Discard, &assembler{})
	f.Path = path
	if _, err := f.Each(t.Context(), Request{}, nil); err == nil || !strings.HasPrefix(err.Error(), "--from: open "+path) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, []byte(lines(exchange(4))), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, f, Request{}); got != "n4.found" {
		t.Errorf("got %q", got)
	}
}

func TestAPI(t *testing.T) {
	h := history.New(history.Config{Keep: time.Hour, MaxBytes: 1 << 20})
	for i := 1; i < 4; i++ {
		h.Add(start.Add(time.Duration(i)*time.Second), history.Lookup{Line: traceOf(exchange(i), nil).AppendJSON(nil)})
	}
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	handler := api.NewHandler(api.Config{History: h, Now: func() time.Time { return start.Add(3 * time.Second) }})
	go func() { done <- api.Serve(ctx, l, handler) }()

	s := API{Path: path, Stderr: io.Discard}
	for _, tc := range []struct {
		request Request
		want    string
	}{
		{Request{}, "n3. n2. n1."},
		{Request{Since: time.Second}, "n3. n2."},
	} {
		if got := collect(t, s, tc.request); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.request, got, tc.want)
		}
	}
	if _, err := s.Each(t.Context(), Request{Follow: true, Since: time.Hour}, func(Lookup) error { return Stop }); err != nil {
		t.Errorf("stop: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Each(t.Context(), Request{}, nil); err == nil || !strings.Contains(err.Error(), "is `dnstrace run` running on this node?") {
		t.Errorf("stopped: %v", err)
	}
}
