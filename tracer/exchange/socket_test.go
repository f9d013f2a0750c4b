package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A and AAAA of one socket wait for a link address and are sent in anybody's context; the
// process reads one answer, and closes the socket: both are its.
func TestProcessOfASocket(t *testing.T) {
	by := func(p *capture.Packet) { p.PID, p.Comm = 42, "curl" }
	ask := func(f *feed, client netip.AddrPort, qtype, id uint16) {
		m := new(dns.Msg).SetQuestion("a.example.", qtype)
		m.Id = id
		f.packet(tx, podNS, 2, client, service, pack(t, m))
		f.skb++
	}
	f := newFeed(t)
	ask(f, pod, dns.TypeA, 7)
	ask(f, pod, dns.TypeAAAA, 8)
	ask(f, netip.AddrPortFrom(pod.Addr(), 4001), dns.TypeA, 9)
	f.packet(rx, podNS, 2, service, pod, response(t, "a.example.", 7, dns.RcodeSuccess))
	f.packet(delivered, podNS, 0, service, pod, response(t, "a.example.", 7, dns.RcodeSuccess))
	f.packet(read, podNS, 0, service, pod, response(t, "a.example.", 7, dns.RcodeSuccess), by)
	f.after(time.Minute)
	for _, ex := range f.got {
		pid := 0
		if ex.Client != nil {
			pid = ex.Client.PID
		}
		if want := map[uint16]int{7: 42, 8: 42, 9: 0}[ex.ID]; pid != want {
			t.Errorf("ID %d is of process %d, expected %d", ex.ID, pid, want)
		}
	}
	if len(f.got) != 3 {
		t.Errorf("%d exchanges", len(f.got))
	}
}
