package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// The time of a slow answer is the upstream's or the way's, as both ends of the way show;
// where one of them is not seen, nobody is accused.
func TestSlowUpstreamOrTheWayToIt(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name          string
		arrived, left time.Duration // at the upstream; negative: not seen
		says, silent  string
	}{
		{"the upstream", 2 * ms, 698 * ms, "192.0.2.53:53 itself took 696 ms of the lookup's 705 ms to answer; the way there and back took 4.00 ms", "cannot be seen"},
		{"the way there", 690 * ms, 692 * ms, "The way to the upstream 192.0.2.53:53 and back took 698 ms of the lookup's 705 ms; the upstream itself took 2.00 ms", "cannot be seen"},
		{"the way back", 2 * ms, 4 * ms, "The way to the upstream 192.0.2.53:53 and back took 698 ms of the lookup's 705 ms; the upstream itself took 2.00 ms", "cannot be seen"},
		{"its arrival is not seen", -1, 698 * ms, "The upstream 192.0.2.53:53, or the way to it, took 700 ms of the lookup's 705 ms: which of the two cannot be seen here", "itself took"},
		{"its departure is not seen", 2 * ms, -1, "or the way to it", "itself took"},
		{"neither is", -1, -1, "or the way to it", "itself took"},
	} {
		up := &trace.Exchange{ServerIP: netip.MustParseAddr("192.0.2.53"), ServerPort: 53, Outcome: trace.OutcomeAnswered, Transmissions: 1}
		up.Duration = trace.SecondsPtr(700 * ms)
		up.Time, up.Protocol, up.RCode = epoch, "udp", "NOERROR"
		see(up, trace.MessageQuery, trace.DirectionTX, "node", 0)
		up.Milestones.Query.Arrived, up.Milestones.Response.Left = trace.NotObservable, trace.NotObservable
		if tc.arrived >= 0 {
			up.Milestones.Query.Arrived = see(up, trace.MessageQuery, trace.DirectionDelivered, "server", tc.arrived)
		}
		if tc.left >= 0 {
			up.Milestones.Response.Left = see(up, trace.MessageResponse, trace.DirectionTX, "server", tc.left)
		}
		ex := asked()
		ex.Outcome, ex.RCode, ex.Duration = trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(705*ms)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: ex.RCode, Upstreams: []trace.Upstream{{Exchange: up, Join: trace.JoinExact}}})
		if codesOf(found) != SlowUpstream {
			t.Fatalf("%s: %+v", tc.name, found)
		}
		if s := found[0].Summary; !strings.Contains(s, tc.says) || strings.Contains(s, tc.silent) || len(s) > 2*77 || len(found[0].Advice) > 2*65 {
			t.Errorf("%s: %s, want %q and not %q\n%s", tc.name, s, tc.says, tc.silent, found[0].Advice)
		}
	}
}

// A server that is gone when its upstream's response comes, and never answered, may have ended: its
// upstream is not slow for that, and did not fail.
func TestServerThatEnded(t *testing.T) {
	ex, up := asked(), asked()
	ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
	ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", 2*time.Millisecond)
	up.Outcome, up.RCode, up.ServerIP = trace.OutcomeDropped, "NOERROR", netip.MustParseAddr("192.0.2.53")
	up.Drops = []trace.Drop{{Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", NetNS: inodes["client"], NetNSName: "client", Offset: trace.Seconds(1500 * time.Millisecond)}}
	d := New()
	for range 8 {
		found := d.Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, QName: ex.QName, QType: ex.QType, Upstreams: []trace.Upstream{{Exchange: up, Join: trace.JoinInferred}}})
		if len(found) != 1 || found[0].Code != NoResponseSeen || !strings.Contains(found[0].Summary, "its socket was closed when its upstream's response came, after 1.50 s") {
			t.Fatalf("%+v", found)
		}
	}
}
