package exchange

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A packet in the buffer of the one before is of the same exchange only if it says
// so, and what a buffer held makes no difference to what is found.
func TestBufferProvesNothingAlone(t *testing.T) {
	other := netip.AddrPortFrom(pod.Addr(), pod.Port()+1)
	aaaa := new(dns.Msg).SetQuestion("example.com.", dns.TypeAAAA)
	aaaa.Id = 7
	asked := query(t, "example.com.", 7)
	for _, tc := range []struct {
		name    string
		src     netip.AddrPort
		payload []byte
		kind    capture.Kind
		change  func(*capture.Packet)
		want    int // exchanges
	}{
		{"the same", pod, asked, capture.RX, func(*capture.Packet) {}, 1},
		{"other case", pod, query(t, "eXample.com.", 7), capture.RX, func(*capture.Packet) {}, 1},
		{"other port", other, asked, capture.TX, sentBy(3, "dig", 0), 2},
		{"other ID", pod, query(t, "example.com.", 8), capture.RX, func(*capture.Packet) {}, 2},
		{"other name", pod, query(t, "example.org.", 7), capture.RX, func(*capture.Packet) {}, 2},
		{"other type", pod, pack(t, aaaa), capture.RX, func(*capture.Packet) {}, 2},
	} {
		for _, skb := range []uint64{1, 2} { // in the same buffer, and in another
			f := newFeed(t)
			f.packet(capture.TX, podNS, 2, pod, server, asked)
			f.skb = skb
			f.packet(tc.kind, podNS, 2, tc.src, server, tc.payload, tc.change)
			if n := f.table.Stats().Open; n != tc.want {
				t.Errorf("%s, buffer %d: %d exchanges, expected %d", tc.name, skb, n, tc.want)
			}
		}
	}
}

// The buffer of a response is that of the next query, whose client was translated:
// nothing says that it is the query that was answered.
func TestBufferOfAResponse(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "example.com.", 7))
	f.skb = 9
	f.packet(capture.RX, podNS, 2, server, pod, response(t, "example.com.", 7, dns.RcodeSuccess))
	f.packet(capture.TX, nodeNS, 2, node, server, query(t, "example.com.", 7))
	if n := f.table.Stats().Open; n != 2 {
		t.Errorf("%d exchanges, expected 2", n)
	}
}

// What is known by its buffer is as complete as what is searched for.
func TestKnownByBufferOrSearched(t *testing.T) {
	see := func(keepBuffer bool) string {
		f := newFeed(t)
		step := func(kind capture.Kind, netns uint32, src, dst netip.AddrPort, payload []byte, change ...func(*capture.Packet)) {
			if !keepBuffer {
				f.skb += 2
			}
			f.packet(kind, netns, 2, src, dst, payload, change...)
		}
		q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, dns.RcodeSuccess)
		step(capture.TX, podNS, pod, service, q)
		step(capture.RX, nodeNS, pod, service, q)
		step(capture.TX, nodeNS, pod, server, q, withNAT(dnat))
		step(capture.RX, serverNS, pod, server, q)
		f.skb = 1001
		step(capture.TX, serverNS, server, pod, r)
		step(capture.RX, nodeNS, server, pod, r)
		step(capture.TX, nodeNS, service, pod, r, withNAT(dnat))
		step(capture.RX, podNS, service, pod, r)
		f.after(linger + 1)
		return string(f.one().AppendJSON(nil))
	}
	known, searched := see(true), see(false)
	if known != searched {
		t.Errorf("known by its buffer:\n%s\nsearched for:\n%s", known, searched)
	}
	if ex, err := trace.Decode([]byte(known)); err != nil || ex.(*trace.Exchange).Path.Len() != 8 {
		t.Errorf("%v: %s", err, known)
	}
}
