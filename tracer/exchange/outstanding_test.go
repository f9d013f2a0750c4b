package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// What waits between a client's host and a server when a query is sent is on its record,
// and nothing is left in the table when all are over.
func TestOutstanding(t *testing.T) {
	f := newFeed(t)
	ask := func(port uint16, to netip.AddrPort, id uint16) {
		f.packet(capture.TX, podNS, 2, netip.AddrPortFrom(pod.Addr(), port), to, query(t, "a.example.", id))
	}
	other := netip.AddrPortFrom(server.Addr().Next(), 53)
	ask(1001, server, 1)
	ask(1002, server, 2)
	ask(1003, other, 3)
	f.packet(capture.RX, podNS, 2, server, netip.AddrPortFrom(pod.Addr(), 1001), response(t, "a.example.", 1, dns.RcodeSuccess))
	ask(1004, server, 4)
	f.after(10 * time.Second)
	f.after(10 * time.Second)
	got := map[uint16]int{}
	for _, ex := range f.got {
		got[ex.ID] = ex.Outstanding
	}
	for id, want := range map[uint16]int{1: 0, 2: 1, 3: 0, 4: 1} {
		if got[id] != want {
			t.Errorf("query %d: %d were outstanding, want %d", id, got[id], want)
		}
	}
	if len(f.got) != 4 || len(f.table.waiting) != 0 {
		t.Errorf("%d exchanges; left in the table: %v", len(f.got), f.table.waiting)
	}
}

// A response that has the name in another case says so.
func TestRespelled(t *testing.T) {
	for answer, want := range map[string]bool{"a.example.": true, "A.exAmple.": false} {
		f := newFeed(t)
		f.packet(capture.TX, podNS, 2, pod, server, query(t, "A.exAmple.", 7))
		f.packet(capture.RX, podNS, 2, server, pod, response(t, answer, 7, dns.RcodeSuccess))
		f.after(time.Second)
		if ex := f.one(); ex.Respelled != want || ex.QName != "a.example." || ex.RCode != "NOERROR" {
			t.Errorf("answered as %s: respelled %v, %s %s", answer, ex.Respelled, ex.QName, ex.RCode)
		}
	}
}
