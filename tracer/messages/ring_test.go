package messages

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

var (
	client  = netip.MustParseAddrPort("10.244.0.4:50202")
	service = netip.MustParseAddrPort("10.96.0.10:53")
	server  = netip.MustParseAddrPort("10.244.0.2:53")
)

func wire(id uint16, response bool, size int) []byte {
	b := bytes.Repeat([]byte{byte(id)}, size)
	binary.BigEndian.PutUint16(b, id)
	b[2] = 0
	if response {
		b[2] = 0x80
	}
	return b
}

func packet(at int64, src, dst netip.AddrPort, payload []byte) *capture.Packet {
	return &capture.Packet{Time: at, Protocol: trace.TransportUDP, Src: src, Dst: dst, Payload: payload, PayloadLen: len(payload) + 7}
}

func TestRing(t *testing.T) {
	r := NewRing()
	query, response := wire(7, false, 40), wire(7, true, 90)
	r.Add(packet(1000, client, service, query))
	r.Add(packet(2000, client, server, query)) // at another place
	r.Add(packet(3000, server, client, response))
	r.Add(packet(3000+samePacket, client, service, query)) // asked again
	r.Add(packet(4000, client, service, wire(8, false, 40)))
	r.Add(packet(5000, netip.MustParseAddrPort("10.244.0.5:50202"), service, query))
	tcp := packet(6000, client, service, query)
	tcp.Protocol = trace.TransportTCP
	r.Add(tcp)
	r.Add(packet(7000, client, service, query[:header-1]))

	got := r.Find(client, 7)
	want := []Message{{1000, false, query, 47}, {3000, true, response, 97}, {3000 + samePacket, false, query, 47}}
	if len(got) != len(want) {
		t.Fatalf("%d messages, expected %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i].Time != want[i].Time || got[i].Response != want[i].Response || got[i].Size != want[i].Size || !bytes.Equal(got[i].Wire, want[i].Wire) {
			t.Errorf("message %d: %v, expected %v", i, got[i], want[i])
		}
	}
}

// Whatever comes, memory is bounded, and what is found is what came.
func TestRingIsBounded(t *testing.T) {
	r := NewRing()
	for i := range 3 * maxEntries {
		id := uint16(i)
		r.Add(packet(int64(i)*samePacket, client, service, wire(id, false, header+i%500)))
		if i%100 != 0 {
			continue
		}
		for _, m := range r.Find(client, id-40) {
			if m.Wire[header-1] != byte(id-40) || m.Wire[len(m.Wire)-1] != byte(id-40) {
				t.Fatalf("%d: overwritten", i)
			}
		}
		if len(r.Find(client, id)) == 0 || i > 40 && len(r.Find(client, id-40)) == 0 {
			t.Fatalf("%d: the latest are gone", i)
		}
	}
	if len(r.entries) != maxEntries || len(r.data) != dataBytes {
		t.Errorf("%d entries, %d bytes", len(r.entries), len(r.data))
	}
	if len(r.Find(client, 100)) > 1 {
		t.Error("the oldest are still there")
	}
}

// BenchmarkAdd is what a packet costs: a message that is new, and one that was seen
// at another place before.
func BenchmarkAdd(b *testing.B) {
	payload := wire(1, false, 60)
	for name, step := range map[string]uint16{"new": 1, "seen": 0} {
		b.Run(name, func(b *testing.B) {
			r := NewRing()
			p := packet(0, client, service, payload)
			id := uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				id += step
				binary.BigEndian.PutUint16(payload, id)
				r.Add(p)
			}
		})
	}
}
