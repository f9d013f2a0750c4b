package exchange

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Two pods ask servers of their own on loopback, with equal addresses, ports, IDs and
// question, at once.
var loopbacks = []struct {
	name           string
	client, server netip.AddrPort
}{
	{"IPv4", netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.53:53")},
	{"IPv6", netip.MustParseAddrPort("[::1]:40000"), netip.MustParseAddrPort("[::1]:53")},
}

const podA, podB = 11, 12

func TestLoopbackOfTwoNamespaces(t *testing.T) {
	for _, tc := range loopbacks {
		f := newFeed(t)
		pass := func(netns uint32, src, dst netip.AddrPort, payload []byte) {
			f.packet(capture.TX, netns, 1, src, dst, payload)
			f.packet(capture.RX, netns, 1, src, dst, payload)
		}
		pass(podA, tc.client, tc.server, query(t, "here.test.", 7))
		pass(podB, tc.client, tc.server, query(t, "here.test.", 7))
		pass(podB, tc.server, tc.client, response(t, "here.test.", 7, 3))
		f.after(time.Minute)
		outcomes := map[uint32]string{}
		for _, ex := range f.got {
			outcomes[ex.Path.At(0).NetNS] = ex.Outcome
			for _, s := range ex.Path.All() {
				if s.NetNS != ex.Path.At(0).NetNS {
					t.Errorf("%s: one exchange in two namespaces: %+v", tc.name, ex.Path)
				}
			}
		}
		if len(f.got) != 2 || outcomes[podA] != trace.OutcomeUnanswered || outcomes[podB] != trace.OutcomeAnswered {
			t.Errorf("%s: %d exchanges, %v", tc.name, len(f.got), outcomes)
		}
	}
}

// Their segments are two streams, though every number is equal.
func TestLoopbackConnectionsOfTwoNamespaces(t *testing.T) {
	for _, tc := range loopbacks {
		f := newFeed(t)
		pass := func(netns uint32, src, dst netip.AddrPort, seq uint32, flags uint8, payload []byte) {
			f.packet(capture.TX, netns, 1, src, dst, payload, tcp(seq, flags))
			f.packet(capture.RX, netns, 1, src, dst, payload, tcp(seq, flags))
		}
		names := map[uint32]string{podA: "one.example.", podB: "two.example."}
		pods := []uint32{podA, podB}
		for _, ns := range pods {
			pass(ns, tc.client, tc.server, 99, capture.FlagSYN, nil)
			pass(ns, tc.server, tc.client, 499, capture.FlagSYN|capture.FlagACK, nil)
		}
		size := len(framed(query(t, names[podA], 1))) // both are as long
		for _, part := range []struct{ from, to int }{{0, size / 2}, {size / 2, size}} {
			for _, ns := range pods {
				whole := framed(query(t, names[ns], 1))
				pass(ns, tc.client, tc.server, 100+uint32(part.from), 0, whole[part.from:part.to])
			}
		}
		for _, ns := range pods {
			pass(ns, tc.server, tc.client, 500, 0, framed(response(t, names[ns], 1, 0)))
		}
		f.after(time.Minute)
		var got []string
		for _, ex := range f.got {
			got = append(got, ex.QName+" "+ex.Outcome)
			if ex.QName != names[ex.Path.At(0).NetNS] {
				t.Errorf("%s: %s in namespace %d", tc.name, ex.QName, ex.Path.At(0).NetNS)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"one.example. answered", "two.example. answered"}) {
			t.Errorf("%s: %v, %+v", tc.name, got, f.table.Stats())
		}
	}
}

// A drop that tells no namespace belongs to the one exchange that it may be of, if
// there is one only; else it is an exchange that was seen nowhere before.
func TestLoopbackDropInNoNamespace(t *testing.T) {
	for _, tc := range []struct {
		pods    []uint32
		dropped int
	}{{[]uint32{podA}, 1}, {[]uint32{podA, podB}, 0}} {
		f := newFeed(t)
		client, server := loopbacks[0].client, loopbacks[0].server
		for _, ns := range tc.pods {
			f.packet(capture.TX, ns, 1, client, server, query(t, "here.test.", 7))
			f.packet(capture.RX, ns, 1, client, server, query(t, "here.test.", 7))
		}
		f.skb = 1 << 40 // what was in the buffer is long forgotten
		f.packet(capture.Drop, 0, 0, client, server, query(t, "here.test.", 7))
		f.after(time.Minute)
		dropped := 0
		for _, ex := range f.got {
			if ex.Outcome == trace.OutcomeDropped && ex.Path.Len() > 0 {
				dropped++
			}
		}
		if dropped != tc.dropped {
			t.Errorf("%d pods: %d dropped of %d", len(tc.pods), dropped, len(f.got))
		}
	}
}
