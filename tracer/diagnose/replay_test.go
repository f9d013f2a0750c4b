package diagnose_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// Every recorded case, exchanges and records of the plugin of a real fault in the
// lab, replays to the same diagnosis. DNSTRACE_UPDATE=1 rewrites what is expected:
// read the difference before you commit it. DNSTRACE_RECORD in integration makes
// the cases.
func TestRecordedCases(t *testing.T) {
	for _, path := range recordedCases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			compare(t, filepath.Join("testdata", caseName(path)+".golden"), describe(assembled(t, path)))
		})
	}
}

func compare(t *testing.T, golden string, got []byte) {
	t.Helper()
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s; got:\n%s", golden, got)
	}
}

// nearMisses are, for each code, the recorded case that comes closest to it and
// is none.
var nearMisses = map[string]string{
	diagnose.CachedFailure:           "cached-failure-not",        // a name that does not exist, out of the cache
	diagnose.ConcurrencyLimit:        "concurrency-limit-not",     // refuses a name, whatever else it treats
	diagnose.TypeIgnored:             "type-ignored-not",          // silent for the name
	diagnose.ClientGaveUp:            "dropped-response",          // the response died on its way to a client that waited
	diagnose.ConntrackFull:           "conntrack-full-not",        // full, but a rule dropped it
	diagnose.ConntrackRace:           "conntrack-race-not",        // a rule dropped one of two from a socket
	diagnose.DroppedByBPF:            "dropped-query",             // a firewall rule did
	diagnose.DroppedByNetfilter:      "lost-without-a-drop",       // no drop that the kernel tells of
	diagnose.DroppedNoSocket:         "refused-by-bpf",            // the ICMP error says so, and an eBPF program made it
	diagnose.DroppedOther:            "no-listener",               // a reason with a code of its own
	diagnose.DroppedReceiveBuffer:    "server-overloaded",         // waited in the buffer, and was read
	diagnose.ForwardingLoop:          "forwarding-loop-not",       // asks itself at another port, which asks others
	diagnose.InconsistentAnswers:     "inconsistent-answers-not",  // no IPv6 address, said with NOERROR
	diagnose.ListenQueueFull:         "tcp-unanswered",            // the SYN vanished before its listener
	diagnose.NoResponseSeen:          "lost-without-a-drop",       // the server's records tell more
	diagnose.NXDomainStorm:           "nxdomain-storm-not",        // a third of many lookups
	diagnose.OversizedResponse:       "lost-fragment-not",         // large, in fragments, and asked for
	diagnose.PathMTU:                 "path-mtu-not",              // nothing that carries data came, small as it was
	diagnose.QueryNeverArrived:       "no-response-seen",          // it was seen at the server
	diagnose.RefusedByServer:         "upstream-error",            // an upstream refused
	diagnose.ResponseLost:            "dropped-response",          // the kernel tells where
	diagnose.ResponseRejected:        "no-response-seen",          // nothing came at all
	diagnose.Retransmission:          "retransmission-not",        // a patient client
	diagnose.SearchPathAmplification: "search-path-musl-not",      // a final dot
	diagnose.SearchPathShadowed:      "search-path-shadowed-not",  // a name of the client's own domain
	diagnose.ServerOverloaded:        "server-slow",               // the time passed in a plugin
	diagnose.ServerSlow:              "server-slow-not",           // a fifth of a second
	diagnose.SlowUpstream:            "slow-upstream-not",         // a fifth of a second
	diagnose.StaleEndpoint:           "dropped-other",             // nobody has the address, but no Service led there
	diagnose.TruncatedNotRetried:     "truncated-not-retried-not", // it asked over TCP, half a second later
	diagnose.TruncatedRetry:          "truncated-retry-not",       // TCP from the start
	diagnose.UnexpectedSource:        "response-rejected",         // from the server that was asked
	diagnose.UpstreamError:           "upstream-error-not",        // NXDOMAIN
	diagnose.UpstreamTimeout:         "slow-upstream",             // late, but it came
	diagnose.UpstreamUnhealthy:       "upstream-unhealthy-not",
}

// Every code has a case that provokes it, and one that is close and must not.
func TestEveryCodeHasACaseAndANearMiss(t *testing.T) {
	fires := map[string]map[string]bool{} // by code, the cases
	for _, path := range recordedCases(t) {
		for _, f := range findings(assembled(t, path)) {
			if fires[f.Code] == nil {
				fires[f.Code] = map[string]bool{}
			}
			fires[f.Code][caseName(path)] = true
		}
	}
	for _, code := range diagnose.Codes {
		if len(fires[code]) == 0 {
			t.Errorf("no recorded case has a finding %s", code)
		}
		near := nearMisses[code]
		if matches, err := filepath.Glob("testdata/" + near + ".jsonl*"); near == "" || err != nil || len(matches) == 0 {
			t.Errorf("%s has no near miss", code)
		}
		if fires[code][near] {
			t.Errorf("%s fires with %s", code, near)
		}
	}
}

// Ten minutes of healthy mixed traffic: misses and hits, names that do not exist,
// TCP, IPv6, prefetches, a pod with host networking.
func TestHealthyTrafficHasNoFindings(t *testing.T) {
	traces := assembled(t, "testdata/"+healthy)
	for _, f := range findings(traces) {
		t.Errorf("%s: %s", f.Code, f.Summary)
	}
	from, to := traces[0].Time, traces[0].Time
	for _, tr := range traces {
		if tr.Time.Before(from) {
			from = tr.Time
		}
		if tr.Time.After(to) {
			to = tr.Time
		}
	}
	if len(traces) < 300 || to.Sub(from) < 9*time.Minute {
		t.Errorf("%d traces in %s", len(traces), to.Sub(from))
	}
}

const healthy = "healthy-ten-minutes.jsonl.gz"

// A finding is read at three in the morning: what was seen is two lines of a
// terminal of 80 columns, what to do next two more. The evidence beneath may be
// longer.
func TestFindingsAreShort(t *testing.T) {
	const summary, advice = 2 * 77, 2 * 65 // the room that explain leaves beside its margin
	for _, path := range recordedCases(t) {
		for _, f := range findings(assembled(t, path)) {
			if n := utf8.RuneCountInString(f.Summary); n > summary {
				t.Errorf("%s, %s: the summary has %d characters, more than %d: %s", caseName(path), f.Code, n, summary, f.Summary)
			}
			if n := utf8.RuneCountInString(f.Advice); n > advice {
				t.Errorf("%s, %s: the advice has %d characters, more than %d: %s", caseName(path), f.Code, n, advice, f.Advice)
			}
		}
	}
}

// What is missing was last seen somewhere, and the summary says where.
func TestSummariesSayWhere(t *testing.T) {
	places := []string{diagnose.QueryNeverArrived, diagnose.ResponseLost, diagnose.NoResponseSeen, diagnose.ConntrackRace,
		diagnose.ConntrackFull, diagnose.DroppedByNetfilter, diagnose.DroppedNoSocket, diagnose.DroppedOther, diagnose.DroppedReceiveBuffer}
	for _, path := range recordedCases(t) {
		for _, f := range findings(assembled(t, path)) {
			if slices.Contains(places, f.Code) && !strings.Contains(f.Summary, " in namespace ") {
				t.Errorf("%s, %s: no place in %q", caseName(path), f.Code, f.Summary)
			}
		}
	}
}

// recordedCases are the files that hold a case each, with what is expected
// beside it.
func recordedCases(t *testing.T) []string {
	t.Helper()
	cases, err := filepath.Glob("testdata/*.jsonl*")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no recorded cases: %v", err)
	}
	return slices.DeleteFunc(cases, func(path string) bool { return filepath.Base(path) == healthy })
}

func caseName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}

// assembled replays a file, in the order in which its records were written; all
// traces are made at the end.
func assembled(t *testing.T, path string) []*trace.Trace {
	t.Helper()
	return assembledWith(t, path, func(trace.Record) {})
}

// assembledWith replays a file whose records were changed.
func assembledWith(t *testing.T, path string, change func(trace.Record)) []*trace.Trace {
	t.Helper()
	a := assemble.New(assemble.Config{})
	for _, r := range readCase(t, path) {
		change(r)
		a.Add(r)
	}
	return a.Flush()
}

// readCase reads the records of a case.
func readCase(t *testing.T, path string) []trace.Record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var all []trace.Record
	reader := trace.NewReader(in)
	for {
		r, _, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// Whatever the order of the records, as they come from two processes, the traces
// and what is found in them are the same; and so they are where they come as a
// tracer gets them, each when it is over, while time passes.
func TestRecordedCasesInAnyOrder(t *testing.T) {
	for _, path := range recordedCases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			want := inOrder(assembled(t, path))
			for seed := range uint64(5) {
				records := readCase(t, path)
				rand.New(rand.NewPCG(seed, 3)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
				a := assemble.New(assemble.Config{})
				for _, r := range records {
					a.Add(r)
				}
				if got := inOrder(a.Flush()); !bytes.Equal(got, want) {
					t.Fatalf("shuffled with seed %d:\n%s\nwant:\n%s", seed, got, want)
				}
			}
			records := readCase(t, path)
			slices.SortStableFunc(records, func(a, b trace.Record) int { return ended(a).Compare(ended(b)) })
			open := new(toCome)
			a := assemble.New(assemble.Config{Open: open})
			var live []*trace.Trace
			for i, r := range records {
				*open = records[i+1:]
				a.Add(r)
				live = append(live, a.Advance(ended(r))...)
			}
			if got := inOrder(append(live, a.Flush()...)); !bytes.Equal(got, want) {
				t.Errorf("as a tracer gets them:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// toCome are the records of which the table of exchanges knows that they will come.
type toCome []trace.Record

func (c *toCome) has(like func(*trace.Exchange) bool) bool {
	return slices.ContainsFunc(*c, func(r trace.Record) bool {
		ex, ok := r.(*trace.Exchange)
		return ok && like(ex)
	})
}

func (c *toCome) UnderWay(q *trace.Query) bool {
	return c.has(func(ex *trace.Exchange) bool { return ex.Flow == q.Flow && !ex.Time.After(q.Time) })
}

func (c *toCome) Rejecting(server netip.AddrPort, qname, qtype string, from, until time.Time) bool {
	return c.has(func(ex *trace.Exchange) bool {
		return len(ex.Rejected) > 0 && netip.AddrPortFrom(ex.ServerIP, ex.ServerPort) == server && ex.QName == qname && ex.QType == qtype &&
			!ex.Time.Before(from) && !ex.Time.After(until)
	})
}

func (c *toCome) Server(*trace.Query) (pid int, cgroup string) { return 0, "" }

func (c *toCome) Asking(place trace.Place, pid int, qname, qtype string, from, until time.Time) bool {
	return c.has(func(ex *trace.Exchange) bool {
		client, ok := ex.ClientPlace()
		return ok && client == place && (pid == 0 || ex.Client == nil || ex.Client.PID == 0 || ex.Client.PID == pid) &&
			ex.QName == qname && ex.QType == qtype && !ex.Time.Before(from) && !ex.Time.After(until)
	})
}

func (c *toCome) Kin(of *trace.Exchange, from, until time.Time) (kin []*trace.Exchange) {
	for _, r := range *c {
		if ex, ok := r.(*trace.Exchange); ok && ex.ClientIP == of.ClientIP && !ex.Time.Before(from) && !ex.Time.After(until) {
			kin = append(kin, ex)
		}
	}
	return kin
}

func (c *toCome) AllReported(time.Time) bool { return true }

// inOrder describes traces in the order in which the lookups began.
func inOrder(traces []*trace.Trace) []byte {
	slices.SortFunc(traces, func(a, b *trace.Trace) int {
		return cmp.Or(a.Time.Compare(b.Time), bytes.Compare(a.TraceID[:], b.TraceID[:]))
	})
	return describe(traces)
}

// ended is when a record is written: what is unanswered, after its timeout.
func ended(r trace.Record) time.Time {
	at := r.Head().Time
	switch r := r.(type) {
	case *trace.Exchange:
		if r.Duration == nil {
			return at.Add(5 * time.Second)
		}
		return at.Add(r.Duration.Duration())
	case *trace.Query:
		if r.Duration != nil {
			return at.Add(r.Duration.Duration())
		}
	case *trace.Refresh:
		if r.Duration != nil {
			return at.Add(r.Duration.Duration())
		}
	}
	return at
}

func findings(traces []*trace.Trace) []trace.Finding {
	d := diagnose.New()
	var all []trace.Finding
	for _, tr := range traces {
		all = append(all, d.Trace(tr)...)
	}
	return all
}

// describe writes what a golden file holds: of cases with many lookups only those
// with something to tell.
func describe(traces []*trace.Trace) []byte {
	const many = 20
	var out bytes.Buffer
	d := diagnose.New()
	for _, tr := range traces {
		found := d.Trace(tr)
		if len(traces) > many && len(found) == 0 {
			continue
		}
		fmt.Fprintf(&out, "%s %s: %s, %d upstreams\n", tr.QName, tr.QType, tr.Outcome, len(tr.Upstreams))
		for _, u := range tr.Upstreams {
			fmt.Fprintf(&out, "  upstream: join %s, attempt %t, exchange %t\n", u.Join, u.Attempt != nil, u.Exchange != nil)
		}
		if tr.Resolution != "" {
			fmt.Fprintf(&out, "  resolution: %s\n", tr.Resolution)
		}
		for _, g := range tr.Gaps {
			fmt.Fprintf(&out, "  gap: %s\n", g)
		}
		for _, f := range found {
			doubt := ""
			if f.InDoubt {
				doubt = " (in doubt)"
			}
			fmt.Fprintf(&out, "  %s%s: %s\n", f.Code, doubt, f.Summary)
			for _, e := range f.Evidence {
				fmt.Fprintf(&out, "    - %s\n", e)
			}
			fmt.Fprintf(&out, "    > %s\n", f.Advice)
		}
	}
	return out.Bytes()
}
