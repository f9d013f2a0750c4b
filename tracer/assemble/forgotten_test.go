package assemble

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// Whatever some hosts and servers seem to do, in the worst order and with too little room: in
// the end nothing of it is held, indexed or counted.
func TestAllIsForgotten(t *testing.T) {
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + n)}) }
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		a := New(Config{MaxBytes: []int{1 << 15, 1 << 18, 1 << 30}[seed%3]})
		at := time.Duration(0)
		one := func() *trace.Exchange {
			src, dst := rnd.IntN(4), rnd.IntN(4)
			took := time.Duration(rnd.IntN(3)) * ms
			ex := exchange(fmt.Sprintf("n%d.test.", rnd.IntN(3)), uint32(1+src), uint32(1+dst), addr(src), addr(dst), uint16(1+rnd.IntN(3)), at, took)
			if ex.Client = nil; rnd.IntN(2) == 0 {
				ex.Client = &trace.Endpoint{PID: 100 + src, Process: "p"}
			}
			if ex.Server = nil; rnd.IntN(2) == 0 {
				ex.Server = &trace.Endpoint{PID: 100 + dst, Process: "p"}
			}
			switch rnd.IntN(6) {
			case 0:
				ex.Protocol = "tcp"
			case 1:
				ex.Protocol, ex.QName, ex.QType = "tcp", "", ""
			case 2:
				ex.Transmissions = 2
			case 3:
				id := trace.Traceparent{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{byte(1 + rnd.IntN(2))}}
				ex.Traceparent = id.String()
			}
			return ex
		}
		for range 1500 {
			at += time.Duration(rnd.IntN(int(20 * ms)))
			ex := one()
			q := record(ex, time.Duration(rnd.IntN(3))*ms/2, ms)
			for n := range rnd.IntN(3) {
				at := attempt(n+1, time.Duration(rnd.IntN(2))*ms, time.Duration(rnd.IntN(4))*ms, []string{trace.OutcomeOK, trace.OutcomeTimeout, trace.OutcomeError, trace.OutcomeFailed}[rnd.IntN(4)])
				at.Address = []string{netip.AddrPortFrom(addr(rnd.IntN(4)), 53).String(), "grpc"}[rnd.IntN(8)/7]
				q.Upstreams = append(q.Upstreams, at)
			}
			q.Stamped = rnd.IntN(3) == 0
			q.ServerIP, q.ServerPort = ex.ServerIP, 53
			from := peer.Process{PID: 100 + rnd.IntN(4)}
			switch rnd.IntN(5) {
			case 0, 1:
				a.Add(ex)
			case 2:
				a.Report(q, from)
			case 3:
				a.Add(ex)
				a.Report(q, from)
			case 4:
				r := &trace.Refresh{Header: q.Header, DNS: q.DNS, Cause: "prefetch", Upstreams: q.Upstreams}
				a.Report(r, from)
			}
			if rnd.IntN(4) == 0 {
				a.Advance(epoch.Add(at))
			}
		}
		for range 40 {
			at += time.Minute
			a.Advance(epoch.Add(at))
		}
		a.calls.expire(epoch.Add(at)) // which comes with the next lookup
		if s := a.Stats(); s.Bytes != 0 || s.Pending != 0 || a.flows.Len()+len(a.questions)+len(a.stamped)+len(a.spans)+len(a.calls.byCaller) > 0 || a.held.first != nil || a.strangers.first != nil {
			t.Fatalf("seed %d: %+v, %d flows, %d questions, %d stamped, %d spans", seed, s, a.flows.Len(), len(a.questions), len(a.stamped), len(a.spans))
		}
	}
}
