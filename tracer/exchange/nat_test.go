package exchange

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// elsewhere is the server's address behind a second translation.
var elsewhere = netip.MustParseAddrPort("172.16.0.9:5353")

func conntrack(src, dst, replySrc, replyDst netip.AddrPort) *capture.NAT {
	return &capture.NAT{Original: capture.Tuple{Src: src, Dst: dst}, Reply: capture.Tuple{Src: replySrc, Dst: replyDst}}
}

// A client that is translated again and again is known by so many addresses, and
// the rest is counted.
func TestAddressesOfAClientAreBounded(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	const translations = 3 * maxAliases
	for n := range uint16(translations) {
		to := netip.AddrPortFrom(node.Addr(), 2000+n)
		f.packet(capture.TX, nodeNS, 2, pod, service, q, withNAT(conntrack(pod, service, server, to)))
	}
	for _, e := range f.table.due {
		if n := 1 + len(e.Item.clients); n != maxAliases {
			t.Errorf("%d addresses, expected %d", n, maxAliases)
		}
	}
	if got, want := f.table.Stats().Addresses, uint64(translations-(maxAliases-1)); got != want {
		t.Errorf("%d counted, expected %d", got, want)
	}
}

func TestTranslationOfBothEnds(t *testing.T) {
	type at struct {
		netns    uint32
		src, dst netip.AddrPort
		nat      *capture.NAT
	}
	both := conntrack(pod, service, server, node)
	for _, tc := range []struct {
		name           string
		path           []at
		server, client netip.AddrPort // none: not translated
		source         string
	}{
		{"a Service and masquerade, from conntrack", []at{
			{podNS, pod, service, nil}, {nodeNS, node, server, both}, {serverNS, node, server, nil},
		}, server, node, trace.NATConntrack},
		{"the same, conntrack cannot be read", []at{
			{podNS, pod, service, nil}, {nodeNS, node, server, nil}, {serverNS, node, server, nil},
		}, server, node, trace.NATBuffer},
		{"masquerade alone, in the same buffer", []at{
			{podNS, pod, server, nil}, {nodeNS, node, server, nil},
		}, netip.AddrPort{}, node, trace.NATBuffer},
		{"the buffer first, then conntrack", []at{
			{podNS, pod, service, nil}, {nodeNS, pod, server, nil}, {nodeNS, node, server, both},
		}, server, node, trace.NATConntrack},
		{"twice, by namespaces one behind the other", []at{
			{podNS, pod, service, nil}, {nodeNS, pod, server, dnat}, {nodeNS + 10, node, elsewhere, conntrack(pod, server, elsewhere, node)},
		}, elsewhere, node, trace.NATConntrack},
		{"none", []at{{podNS, pod, server, nil}, {serverNS, pod, server, nil}}, netip.AddrPort{}, netip.AddrPort{}, ""},
	} {
		for _, pause := range []time.Duration{0, 20 * time.Millisecond} { // on a node that has no time for it
			t.Run(fmt.Sprint(tc.name, ", paused ", pause), func(t *testing.T) {
				f := newFeed(t)
				f.pause = pause
				q := query(t, "example.com.", 7)
				for _, p := range tc.path {
					f.packet(capture.TX, p.netns, 2, p.src, p.dst, q, withNAT(p.nat))
				}
				f.after(9 * time.Second)
				ex := f.one()
				if ex.Path.Len() != len(tc.path) || ex.ClientIP != pod.Addr() || ex.ClientPort != pod.Port() || ex.Transmissions != 1 {
					t.Errorf("%d sightings of %d, client %s:%d, %d transmissions", ex.Path.Len(), len(tc.path), ex.ClientIP, ex.ClientPort, ex.Transmissions)
				}
				if ex.NAT == nil {
					if tc.source != "" {
						t.Fatal("no translation")
					}
					return
				}
				if ex.NAT.Source != tc.source || !is(ex.NAT.ServerIP, ex.NAT.ServerPort, tc.server) || !is(ex.NAT.ClientIP, ex.NAT.ClientPort, tc.client) {
					t.Errorf("translated %+v", ex.NAT)
				}
			})
		}
	}
}

func is(addr netip.Addr, port *uint16, want netip.AddrPort) bool {
	if port == nil {
		return !addr.IsValid() && !want.IsValid()
	}
	return netip.AddrPortFrom(addr, *port) == want
}

// The way back of a lookup whose client was matched.
func TestMatchedClientIsAnswered(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f.packet(capture.TX, podNS, 2, pod, server, q)
	f.packet(capture.TX, nodeNS, 3, node, server, q)
	f.skb++
	f.packet(capture.RX, nodeNS, 3, server, node, r)
	f.packet(capture.RX, podNS, 2, server, pod, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 4 {
		t.Errorf("%s, %d sightings", ex.Outcome, ex.Path.Len())
	}
}

// The kernel uses a buffer again: what comes in it later, or with another
// question, is another query.
func TestBufferIsUsedAgain(t *testing.T) {
	for name, second := range map[string]func(*feed){
		"later": func(f *feed) {
			f.now += waitsForCPU
			f.packet(capture.TX, nodeNS, 3, node, server, query(t, "example.com.", 7))
		},
		"another question": func(f *feed) { f.packet(capture.TX, nodeNS, 3, node, server, query(t, "other.example.", 7)) },
		"another ID":       func(f *feed) { f.packet(capture.TX, nodeNS, 3, node, server, query(t, "example.com.", 8)) },
		"from a socket": func(f *feed) {
			f.packet(capture.TX, nodeNS, 3, node, server, query(t, "example.com.", 7), sentBy(0, "", 8))
		},
		"another buffer": func(f *feed) {
			f.skb++
			f.packet(capture.TX, nodeNS, 3, node, server, query(t, "example.com.", 7))
		},
	} {
		f := newFeed(t)
		f.packet(capture.TX, podNS, 2, pod, server, query(t, "example.com.", 7))
		second(f)
		f.after(9 * time.Second)
		if len(f.got) != 2 {
			t.Errorf("%s: %d exchanges, expected 2", name, len(f.got))
		}
	}
}

// A packet that is sent round and round with ever new addresses.
func TestAliasesAreBounded(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	for port := range uint16(10 * maxAliases) {
		f.packet(capture.TX, nodeNS, 3, netip.AddrPortFrom(node.Addr(), 1000+port), server, q)
	}
	if n := len(f.table.due); n == 0 || f.table.keys.Len()+len(f.table.aliases) > n*maxAliases {
		t.Errorf("%d keys of %d exchanges", f.table.keys.Len()+len(f.table.aliases), n)
	}
}
