package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// unansweredOf is an exchange whose response of a size left the server, and did not come.
func unansweredOf(size int) *trace.Exchange {
	ex := &trace.Exchange{
		Outcome: trace.OutcomeUnanswered, ServerIP: netip.MustParseAddr("10.96.0.10"), ServerPort: 53, Transmissions: 1, ResentSegments: 5,
		Path: trace.PathOf(
			trace.Sighting{Device: trace.Device{NetNS: 1, IfName: "eth0"}, Message: trace.MessageQuery, Direction: trace.DirectionTX},
			trace.Sighting{Device: trace.Device{NetNS: 2, IfName: "eth0"}, Offset: 10, Message: trace.MessageResponse, Direction: trace.DirectionTX},
		),
		Milestones: trace.Milestones{Query: trace.Progress{Left: trace.MilestoneAt(0)}, Response: trace.Progress{Left: trace.MilestoneAt(1)}},
	}
	ex.QName, ex.QType, ex.Protocol, ex.ResponseSize, ex.RequestSize = "a.example.", "A", "tcp", &size, 40
	return ex
}

// What is sent again and again over TCP and does not come is too large where small packets
// do come; else the response is lost, whatever its size.
func TestStuckOverTCP(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*trace.Exchange)
		want   string
	}{
		{"large, sent again and again", func(*trace.Exchange) {}, PathMTU},
		{"sent again once", func(ex *trace.Exchange) { ex.ResentSegments = 1 }, ResponseLost},
		{"the query is not acknowledged", func(ex *trace.Exchange) { ex.Transmissions = 3 }, ResponseLost},
		{"over UDP", func(ex *trace.Exchange) { ex.Protocol = "udp" }, ResponseLost},
		{"as small as passes every path", func(ex *trace.Exchange) { *ex.ResponseSize = 512 }, ResponseLost},
		{"its arrival would not be seen", func(ex *trace.Exchange) { ex.Milestones.Response.Arrived = trace.NotObservable }, NoResponseSeen},
		{"the tracer lost packets", func(ex *trace.Exchange) { ex.LostEvents = 1 }, NoResponseSeen},
	} {
		ex := unansweredOf(4000)
		tc.change(ex)
		if found := New().Trace(&trace.Trace{Exchange: ex, Outcome: ex.Outcome}); len(found) != 1 || found[0].Code != tc.want {
			t.Errorf("%s: %+v, expected %s", tc.name, found, tc.want)
		}
	}
}

// Where the kernel gives no reason, the place and the size tell, or the ICMP error that it
// sent of the packet; a later fragment is a part of a large message whatever dropped it.
func TestDroppedTooBig(t *testing.T) {
	tooBig := &trace.ICMP{Type: 3, Code: 4, From: netip.MustParseAddr("10.244.0.1"), Message: trace.MessageResponse, MTU: 1400, Direction: trace.DirectionTX}
	for _, tc := range []struct {
		name string
		drop trace.Drop
		size int
		icmp *trace.ICMP
		want string
	}{
		{"with its reason", trace.Drop{Reason: "PKT_TOO_BIG", Where: "ip_forward"}, 4000, nil, PathMTU},
		{"a device takes no more", trace.Drop{Where: "__dev_forward_skb2"}, 1400, nil, PathMTU},
		{"the same device is down", trace.Drop{Where: "__dev_forward_skb2"}, 60, nil, DroppedOther},
		{"before Linux 5.17, with the error", trace.Drop{Where: "ip_forward"}, 1400, tooBig, PathMTU},
		{"before Linux 5.17, without it", trace.Drop{Where: "ip_forward"}, 1400, nil, DroppedOther},
		{"another reason beside the error", trace.Drop{Reason: "NETFILTER_DROP", Where: "nft_do_chain"}, 1400, tooBig, DroppedByNetfilter},
		{"the fragments that have no ports", trace.Drop{Reason: "NETFILTER_DROP", Where: "nft_do_chain", Fragment: true}, 1400, nil, PathMTU},
	} {
		ex := unansweredOf(tc.size)
		ex.Protocol, ex.Outcome, ex.ICMP = "udp", trace.OutcomeDropped, tc.icmp
		tc.drop.Message, tc.drop.NetNSName, tc.drop.IfName, tc.drop.Offset = trace.MessageResponse, "node", "cni0", 20
		ex.Drops = []trace.Drop{tc.drop}
		found := New().Trace(&trace.Trace{Exchange: ex, Outcome: ex.Outcome})
		if len(found) != 1 || found[0].Code != tc.want || !strings.Contains(found[0].Summary, "namespace node") {
			t.Errorf("%s: %+v, expected %s", tc.name, found, tc.want)
		}
	}
}
