package exchange

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// What a packet says must never crash the tracer, whatever it says.
func FuzzMessage(f *testing.F) {
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	m.SetEdns0(1232, true)
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}, 0xc0, 12, 0, 1, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		parseEDNS(b, h)
		q := splitQuestion(h.question)
		name, err := q.presentation()
		if err != nil {
			return
		}
		wire := make([]byte, 256)
		n, err := dns.PackDomainName(name, wire, 0, nil, false)
		if err != nil || n != len(q.name) {
			t.Fatalf("%x reads as %q, which packs to %x: %v", q.name, name, wire[:n], err)
		}
	})
}

// Segments of any shape, twice as the same and as the other direction.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 13, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}, uint8(3), uint32(0xfffffff0))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8, seq uint32) {
		table := New(Config{Ports: []uint16{53}, Wall: wall})
		step := int(piece) + 1
		now := int64(0)
		for off := 0; off < len(b); off += step {
			part := b[off:min(off+step, len(b))]
			for _, kind := range []capture.Kind{capture.TX, capture.RX} {
				now++
				table.Packet(&capture.Packet{
					Time: now, Kind: kind, Protocol: trace.TransportTCP, TCPSeq: seq + uint32(off), Src: pod, Dst: service,
					NetNS: uint32(kind), Payload: part, PayloadLen: len(part) + int(piece%2)*9,
				})
				table.Packet(&capture.Packet{
					Time: now, Kind: kind, Protocol: trace.TransportTCP, TCPSeq: seq + uint32(off), Src: service, Dst: pod,
					NetNS: uint32(kind), Payload: part, PayloadLen: len(part),
				})
			}
		}
		table.Flush(func(ex *trace.Exchange) {
			if _, err := trace.Decode(ex.AppendJSON(nil)); err != nil {
				t.Fatalf("a record that cannot be read: %v", err)
			}
		})
	})
}

func BenchmarkLookup(b *testing.B) {
	m := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	q, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	r, err := new(dns.Msg).SetReply(m).Pack()
	if err != nil {
		b.Fatal(err)
	}
	table := New(Config{Ports: []uint16{53}, Wall: wall})
	b.ReportAllocs()
	now, id := int64(0), uint16(0)
	for b.Loop() {
		id++
		for i := range 10 {
			payload, src, dst := q, pod, service
			kind := capture.TX
			if i%2 == 1 {
				kind = capture.RX
			}
			if i >= 5 {
				payload, src, dst = r, service, pod
			}
			payload[0], payload[1] = byte(id>>8), byte(id)
			now += 1000
			table.Packet(&capture.Packet{Time: now, Kind: kind, Protocol: trace.TransportUDP, NetNS: uint32(1 + min(i, 9-i)), Src: src, Dst: dst,
				Payload: payload, PayloadLen: len(payload), SKB: uint64(id), IfName: "eth0"})
		}
		now += 100_000
		table.Advance(now, func(*trace.Exchange) {})
	}
}
