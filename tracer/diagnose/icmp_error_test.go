package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// An ICMP error about the query names the cause; one about the response, or that
// only says that something was too big, does not.
func TestComplaint(t *testing.T) {
	pod := netip.MustParseAddr("10.244.0.9")
	v4, v6 := netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00:10:244::1")
	for _, tc := range []struct {
		name       string
		from       netip.Addr
		kind, code uint8
		message    string
		nat        bool
		want       string
	}{
		{"port closed", v4, 3, 3, trace.MessageQuery, true, DroppedNoSocket},
		{"port closed, IPv6", v6, 1, 4, trace.MessageQuery, false, DroppedNoSocket},
		{"no such host behind the Service", v4, 3, 1, trace.MessageQuery, true, StaleEndpoint},
		{"no such host behind the Service, IPv6", v6, 1, 3, trace.MessageQuery, true, StaleEndpoint},
		{"no such host, and no Service", v4, 3, 1, trace.MessageQuery, false, NoResponseSeen},
		{"about the response", v4, 3, 3, trace.MessageResponse, true, NoResponseSeen},
		{"fragmentation needed", v4, 3, 4, trace.MessageQuery, true, PathMTU},
		{"packet too big, IPv6, about the response", v6, 2, 0, trace.MessageResponse, false, PathMTU},
	} {
		ex := &trace.Exchange{Outcome: trace.OutcomeUnanswered, ServerIP: netip.MustParseAddr("10.96.0.10"), ServerPort: 53}
		ex.Protocol = "udp"
		ex.ICMP = &trace.ICMP{Type: tc.kind, Code: tc.code, From: tc.from, Message: tc.message}
		if tc.nat {
			ex.NAT = &trace.NAT{ServerIP: pod, Source: trace.NATConntrack}
		}
		found := New().Trace(&trace.Trace{Exchange: ex})
		if len(found) != 1 || found[0].Code != tc.want {
			t.Errorf("%s: %+v, expected %s", tc.name, found, tc.want)
			continue
		}
		if tc.want != NoResponseSeen && !strings.Contains(found[0].Evidence[0], tc.from.String()) {
			t.Errorf("%s: evidence %q", tc.name, found[0].Evidence)
		}
	}
}

// An eBPF program that makes an ICMP error of the query is what refused it, whatever the
// error says of others.
func TestErrorOfAProgram(t *testing.T) {
	for _, code := range []uint8{1, 3, 13} {
		ex := &trace.Exchange{Outcome: trace.OutcomeUnanswered, ServerIP: netip.MustParseAddr("10.96.0.10"), ServerPort: 53}
		ex.Protocol = "tcp"
		ex.ICMP = &trace.ICMP{Type: 3, Code: code, From: ex.ServerIP, Message: trace.MessageQuery, NetNSName: "node", IfName: "lxc1", Direction: trace.DirectionTX, BPF: true}
		found := New().Trace(&trace.Trace{Exchange: ex})
		if len(found) != 1 || found[0].Code != DroppedByBPF || !strings.Contains(found[0].Summary, "in namespace node, at device lxc1") ||
			!strings.Contains(found[0].Summary, "attempt to connect") || !strings.Contains(found[0].Summary, ex.ICMP.Name()) {
			t.Errorf("code %d: %+v", code, found)
		}
	}
}

// Of a chain of servers the one that failed first is named, not all that passed
// its failure on.
func TestErrorIsNamedWhereItBegan(t *testing.T) {
	failed := func(ip string) *trace.Exchange {
		ex := &trace.Exchange{Outcome: trace.OutcomeAnswered, ServerIP: netip.MustParseAddr(ip), ServerPort: 53}
		ex.RCode = "SERVFAIL"
		return ex
	}
	tr := &trace.Trace{RCode: "SERVFAIL", Upstreams: []trace.Upstream{{
		Exchange: failed("10.244.0.2"), Upstreams: []trace.Upstream{{Exchange: failed("192.0.2.1")}},
	}}}
	found := New().Trace(tr)
	if len(found) != 1 || found[0].Code != UpstreamError || !strings.Contains(found[0].Summary, "192.0.2.1") {
		t.Errorf("%+v", found)
	}
}
