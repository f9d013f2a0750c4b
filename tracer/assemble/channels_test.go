package assemble

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A client asks ever new addresses one question, for as long as it likes: what the index knows of
// them goes with their lookups, and those of others who ask the same are found as before.
func TestOneQuestionToEveryAddress(t *testing.T) {
	for name, tc := range map[string]struct{ connects, oneFlow bool }{"queries": {}, "connections": {connects: true}, "one socket and ID": {oneFlow: true}} {
		t.Run(name, func(t *testing.T) {
			a := New(Config{})
			const addresses = 30_000
			whole, reported := 0, 0
			count := func(traces []*trace.Trace) {
				for _, tr := range traces {
					reported++
					if tr.Query != nil && tr.Exchange != nil && len(tr.Upstreams) == 1 && tr.Upstreams[0].Join == trace.JoinExact {
						whole++
					}
				}
			}
			const lookups = 10
			for n := range addresses {
				at := time.Duration(n) * 2 * ms
				ex := toUpstream("hot.example.", uint16(n%50_000), at, 0)
				if ex.Flow[0], ex.Flow[1], ex.Flow[2] = byte(n>>16), byte(n>>8), byte(n); tc.oneFlow {
					ex.Flow, ex.ClientPort, ex.ID = trace.Flow{1}, 7, 7
				}
				ex.ServerIP = netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)})
				ex.ClientIP, ex.Duration, ex.Outcome, ex.RCode = clientIP, nil, trace.OutcomeUnanswered, ""
				if ex.Path = exchange("hot.example.", clientNS, nodeNS, clientIP, upstreamIP, 1, at, ms).Path; tc.connects {
					ex.Protocol, ex.QName, ex.QType = "tcp", "", ""
				}
				a.Add(ex)
				if n%(addresses/lookups) == 0 {
					in := fromClient("hot.example.", uint16(60_000+n/3000), at, 3*ms)
					a.Add(in)
					a.Add(toUpstream("hot.example.", uint16(60_000+n/3000), at+ms, ms))
					a.Add(record(in, ms/2, 2*ms, attempt(1, ms/4, 2*ms, trace.OutcomeOK)))
				}
				if n%100 != 0 {
					continue
				}
				count(a.Advance(epoch.Add(at)))
				if n := len(slices.Collect(a.flows.of(ex.Flow))); n > maxOfFlow {
					t.Fatalf("%d are compared with the next", n)
				}
				for q, at := range a.questions {
					if known, held := len(at.channels), len(a.due)+a.flows.Len(); known > held {
						t.Fatalf("after %d addresses the index of %v has %d of them, with %d lookups", n, q, known, held)
					}
				}
			}
			count(a.Flush())
			if whole != lookups || reported != addresses+lookups {
				t.Errorf("%d whole of %d, %d reported", whole, lookups, reported)
			}
			if s := a.Stats(); len(a.questions) != 0 && a.passedSize() == 0 || s.Pending != 0 {
				t.Errorf("%+v, %d questions", s, len(a.questions))
			}
		})
	}
}
