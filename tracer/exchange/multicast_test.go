package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Multicast DNS: a simple resolver has an exchange with the host that answers it; those
// that speak it among each other have none, and none of them goes unanswered.
func TestMulticastDNS(t *testing.T) {
	group := netip.MustParseAddrPort("224.0.0.251:5353")
	peer := netip.MustParseAddrPort("10.244.0.4:5353")
	responder := netip.MustParseAddrPort("10.244.0.9:5353")
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, peer, group, query(t, "printer.local.", 0))
	f.packet(capture.TX, serverNS, 2, responder, group, response(t, "printer.local.", 0, 0))
	f.packet(capture.TX, podNS, 2, pod, group, query(t, "printer.local.", 7))
	f.packet(capture.RX, podNS, 2, responder, pod, response(t, "printer.local.", 7, 0))
	f.after(time.Minute)
	if len(f.got) != 1 || f.got[0].Outcome != trace.OutcomeAnswered || f.got[0].ServerIP != group.Addr() || f.got[0].ClientPort != pod.Port() {
		t.Errorf("%+v", f.got)
	}
	if s := f.table.Stats(); s.NotDNS != 2 || s.Orphans != 0 {
		t.Errorf("%+v", s)
	}
}
