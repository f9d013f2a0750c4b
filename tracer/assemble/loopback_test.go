package assemble

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// Of a server block that asks another one of the same process over loopback no packets are seen:
// the records show which is behind which.
func TestBlockBehindLoopback(t *testing.T) {
	const us = time.Microsecond
	serves := servedBy(&trace.Endpoint{PID: serverPID, Cgroup: ownCgroup})
	for _, tc := range []struct {
		name   string
		change func(inner *trace.Query)
		from   peer.Process
		want   string
	}{
		{"its server's address is unknown", func(q *trace.Query) { q.ServerIP = netip.Addr{} }, peer.Process{PID: serverPID}, "1000 recorded [1: exact recorded [1: 2000 exact]]"},
		{"it is known", func(*trace.Query) {}, peer.Process{PID: serverPID}, "1000 recorded [1: exact recorded [1: 2000 exact]]"},
		{"at another port", func(q *trace.Query) { q.ServerPort = 5302 }, peer.Process{PID: serverPID}, "1000 recorded [1: none]"},
		{"of another client", func(q *trace.Query) { q.ClientIP = clientIP }, peer.Process{PID: serverPID}, "1000 recorded [1: none]"},
		{"of another process", func(q *trace.Query) { q.ServerIP = netip.Addr{} }, peer.Process{PID: attackerPID}, "1000 recorded [1: none]"},
		{"after the attempt", func(q *trace.Query) { q.Time = q.Time.Add(5 * ms) }, peer.Process{PID: serverPID}, "1000 recorded [1: none]"},
	} {
		for _, innerFirst := range []bool{true, false} {
			ex := with(fromClient("a.example.", 1000, 0, 3*ms), serves)
			at := attempt(1, 50*us, 2500*us, trace.OutcomeOK)
			at.Address = "127.0.0.1:5301"
			outer := record(ex, 20*us, 2900*us, at)
			local := fromClient("a.example.", 3000, 100*us, 2*ms)
			local.ClientIP, local.ServerIP, local.ServerPort = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), 5301
			inner := record(local, 20*us, 1900*us, attempt(1, 50*us, 1500*us, trace.OutcomeOK))
			inner.ServerPort = 5301
			inner.ClientIP, inner.ServerIP = local.ClientIP, local.ServerIP
			tc.change(inner)
			upstreamQuery := with(toUpstream("a.example.", 2000, 250*us, ms), func(ex *trace.Exchange) { ex.Client = &trace.Endpoint{PID: serverPID} })
			a := New(Config{})
			if innerFirst {
				a.Report(inner, tc.from)
			}
			a.Add(upstreamQuery)
			a.Add(ex)
			a.Report(outer, peer.Process{PID: serverPID})
			if !innerFirst {
				a.Report(inner, tc.from)
			}
			got, _, _ := strings.Cut(outlines(a.Flush()), "\n")
			if got != tc.want {
				t.Errorf("%s, first %t: got %s, want %s", tc.name, innerFirst, got, tc.want)
			}
		}
	}
}
