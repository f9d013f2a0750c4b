package assemble

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// openUntil knows one exchange that is under way until a time.
type openUntil struct {
	now, until          time.Time
	record, out, asking bool
	kin                 []*trace.Exchange
	reader              int // process that read the query of a record
	part                bool
}

func (o *openUntil) UnderWay(*trace.Query) bool { return o.record && o.now.Before(o.until) }

func (o *openUntil) Rejecting(server netip.AddrPort, qname, qtype string, _, _ time.Time) bool {
	return o.out && o.now.Before(o.until) && server == netip.AddrPortFrom(upstreamIP, 53) && qname == "a.example." && qtype == "A"
}

func (o *openUntil) Server(*trace.Query) (pid int, cgroup string) { return o.reader, "" }

func (o *openUntil) Asking(place trace.Place, _ int, qname, qtype string, _, _ time.Time) bool {
	return o.asking && o.now.Before(o.until) && place.NetNS == serverNS && qname == "a.example." && qtype == "A"
}

func (o *openUntil) Kin(*trace.Exchange, time.Time, time.Time) []*trace.Exchange {
	if o.now.Before(o.until) {
		return o.kin
	}
	return nil
}

func (o *openUntil) AllReported(time.Time) bool { return !o.part }

// comes is a record and when it comes.
type comes struct {
	at time.Duration
	r  trace.Record
}

// assembleLive assembles what comes at its time.
func assembleLive(open *openUntil, list ...comes) []*trace.Trace {
	a := New(Config{Timeout: 5 * time.Second, Open: open})
	var traces []*trace.Trace
	for now := epoch; now.Sub(epoch) < time.Minute; now = now.Add(50 * time.Millisecond) {
		open.now = now
		for len(list) > 0 && !epoch.Add(list[0].at).After(now) {
			a.Add(list[0].r)
			list = list[1:]
		}
		traces = append(traces, a.Advance(now)...)
	}
	return traces
}

// A client repeats a query after 5 s, whose answers do not reach it: its exchange ends
// long after its records. It is one trace, reported once.
func TestRecordsBeforeTheirExchange(t *testing.T) {
	for _, tc := range []struct {
		name    string
		open    openUntil
		repeats []time.Duration // that are recorded
		over    time.Duration
	}{
		{"every repetition is recorded", openUntil{}, []time.Duration{5 * time.Second, 10 * time.Second}, 16 * time.Second},
		{"only the first is, and the exchange is known to be open", openUntil{record: true, until: epoch.Add(16 * time.Second)}, nil, 16 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := fromClient("a.example.", 1000, 0, 0)
			ex.Transmissions = 3
			see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 5*time.Second)
			see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 10*time.Second)
			list := []comes{{50 * time.Millisecond, record(ex, time.Millisecond, time.Millisecond)}}
			for _, after := range tc.repeats {
				list = append(list, comes{after + 50*time.Millisecond, record(ex, after+time.Millisecond, time.Millisecond)})
			}
			traces := assembleLive(&tc.open, append(list, comes{tc.over, ex})...)
			if len(traces) != 1 || traces[0].Exchange == nil || traces[0].Query == nil || traces[0].Replaces {
				t.Errorf("%d traces: %v", len(traces), outlines(traces))
			}
		})
	}
}

// CoreDNS makes a FORMERR of an answer that it cannot take: the trace waits for what
// came, which is known when its exchange is over.
func TestAttemptWithRejectedAnswer(t *testing.T) {
	for _, out := range []bool{true, false} {
		up := toUpstream("a.example.", 2000, 200*time.Microsecond, 0)
		up.Rejected = []trace.Rejection{{Why: trace.RejectedIncomplete, Offset: trace.Seconds(300 * time.Microsecond)}}
		client := fromClient("a.example.", 1000, 0, 2*time.Millisecond)
		traces := assembleLive(&openUntil{out: out, until: epoch.Add(6 * time.Second)},
			comes{50 * time.Millisecond, record(client, 20*time.Microsecond, 1900*time.Microsecond, attempt(1, 100*time.Microsecond, time.Millisecond, trace.OutcomeOK))},
			comes{100 * time.Millisecond, client}, comes{6 * time.Second, up})
		if want := map[bool]int{true: 1, false: 2}[out]; len(traces) != want || traces[want-1].Upstreams[0].Join != trace.JoinExact {
			t.Errorf("known %v: %v", out, outlines(traces))
		}
	}
}

// What is reported while the other half of its call is under way is of that call.
func TestPartnerUnderWay(t *testing.T) {
	first := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms}.exchange()
	second := ask{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: 5 * ms}.exchange()
	again := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: first.ID, start: 5 * time.Second}.exchange()
	traces := assembleLive(&openUntil{kin: []*trace.Exchange{second}, until: epoch.Add(4 * time.Second)},
		comes{100 * time.Millisecond, first}, comes{6 * time.Second, second}, comes{11 * time.Second, again})
	if len(traces) != 3 {
		t.Fatal(outlines(traces))
	}
	for _, tr := range traces {
		if tr.Resolution != first.TraceID.String() || tr.ResolutionJoin != trace.JoinExact {
			t.Errorf("%s %s: resolution %q, %s", tr.QType, tr.Outcome, tr.Resolution, tr.ResolutionJoin)
		}
	}
}

// A server without records asks two others at once, and one is silent for long: the
// lookup waits for what becomes of that one.
func TestAskingUnderWay(t *testing.T) {
	for _, asking := range []bool{true, false} {
		silent := toUpstream("a.example.", 2000, 200*time.Microsecond, 0)
		answered := exchange("a.example.", serverNS, nodeNS, serverIP, netip.MustParseAddr("192.168.49.2"), 2000, 200*time.Microsecond, time.Millisecond)
		client := fromClient("a.example.", 1000, 0, 2*time.Millisecond)
		traces := assembleLive(&openUntil{asking: asking, until: epoch.Add(6 * time.Second)},
			comes{100 * time.Millisecond, client}, comes{110 * time.Millisecond, answered}, comes{6 * time.Second, silent})
		if want := map[bool]int{true: 1, false: 2}[asking]; len(traces) != want || len(traces[want-1].Upstreams) != 2 {
			t.Errorf("known %v: %v", asking, outlines(traces))
		}
	}
}
