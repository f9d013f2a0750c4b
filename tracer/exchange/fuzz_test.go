package exchange

import (
	"bytes"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// hostile returns messages that were made to break parsers.
func hostile(tb testing.TB) [][]byte {
	tb.Helper()
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	m.SetEdns0(1232, true)
	m.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_EDE{InfoCode: 22, ExtraText: "why"}, &dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: make([]byte, 27)},
	}
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	question := []byte("\x07example\x03com\x00\x00\x01\x00\x01")
	head := func(flags byte, an, ar byte) []byte { return []byte{0, 1, flags, 0, 0, 1, 0, an, 0, 0, 0, ar} }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	deep := bytes.Repeat([]byte{1, 'a'}, 127)
	return [][]byte{
		b,
		join(head(0x80, 0, 1), []byte{0xc0, 12, 0, 1, 0, 1}),                                                            // the question points to itself
		join(head(0x80, 1, 0), question, []byte{0xc0, 29, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 41}),                      // an alias that points to itself
		join(head(0x80, 255, 0), question, bytes.Repeat([]byte{0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12}, 255)), // many
		join(head(0x80, 1, 0), question, []byte{0xc0, 12, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}),           // data beyond the end
		join(head(0x80, 0, 1), question, []byte{0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 6, 0, 15, 0xff, 0xff, 0, 1}),             // an option beyond its record
		join(head(0, 0, 0), deep, []byte{0, 0, 1, 0, 1}),                                                                // a name of 127 labels
		join(head(0, 0, 0), []byte{63}, bytes.Repeat([]byte{0xff}, 63), []byte{0, 0, 1, 0, 1}),                          // no letters
		{},
		head(0, 0, 0),
		join([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, question),                                             // no question
		join([]byte{0, 1, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0}),                                                    // a response without one
		join([]byte{0, 1, 1, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0}, bytes.Repeat(question, 80)),                        // 1,000 questions
		join([]byte{0, 1, 0x80, 0, 0, 1, 255, 255, 255, 255, 255, 255}, question),                              // 65,535 records
		join(head(0, 0, 0), bytes.Repeat([]byte{1, 'a'}, 400), []byte{0, 0, 1, 0, 1}),                          // 400 labels
		join(head(0, 0, 0), []byte{64}, make([]byte, 100)),                                                     // a label of 64 bytes
		join(head(0, 0, 2), question, bytes.Repeat([]byte("\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x00"), 2)), // two options records
		bytes.Repeat([]byte{0xff}, 512),
		join(b, make([]byte, 65535-len(b))),               // the largest
		join(head(0x80, 1, 0), question, []byte{0x80, 1}), // a label of a type that there is not
	}
}

// What a packet says must never crash the tracer, whatever it says, and what it
// makes of it must be a record that can be read.
func FuzzMessage(f *testing.F) {
	for _, b := range hostile(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b, nil)
		if err != nil {
			return
		}
		s := parseSections(b, h)
		if len(s.answers) > maxAnswers {
			t.Fatalf("%d answers", len(s.answers))
		}
		q := splitQuestion(h.question)
		name, err := presentation(q.name)
		if err != nil {
			return
		}
		wire := make([]byte, 256)
		n, err := dns.PackDomainName(name, wire, 0, nil, false)
		if err != nil || n != len(q.name) {
			t.Fatalf("%x reads as %q, which packs to %x: %v", q.name, name, wire[:n], err)
		}
		// The library is slower and says the same.
		if slow, _, err := dns.UnpackDomainName(q.name, 0); err != nil || dns.CanonicalName(slow) != name {
			t.Fatalf("%x reads as %q, not as %q: %v", q.name, name, slow, err)
		}
	})
}

// Packets of any kind: queries and responses, whole and in fragments, dropped and the
// subject of ICMP errors.
func FuzzPackets(f *testing.F) {
	for _, b := range hostile(f) {
		f.Add(b, uint8(0), uint16(0), uint32(1))
		f.Add(b, uint8(0xff), uint16(1480), uint32(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, how uint8, offset uint16, id uint32) {
		table := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: 4096})
		for i := range 8 {
			p := &capture.Packet{
				Time: int64(i), SKB: uint64(id), Kind: capture.Kind(1 + (how+uint8(i))%5), Protocol: trace.TransportUDP, Src: pod, Dst: service,
				NetNS: uint32(i), Payload: b, PayloadLen: len(b) + int(offset),
			}
			switch bit := how >> (i % 8) & 1; {
			case i%4 == 1 && bit == 1:
				p.Fragment = &capture.Fragment{ID: id % 3, Offset: int(offset) * (i / 4), Length: len(b), More: how&2 != 0}
			case i%4 == 2 && bit == 1:
				p.ICMP = &capture.ICMP{Type: how, Protocol: trace.TransportUDP + how&2, Src: pod, Dst: service, Payload: b, TCPSeq: id}
			case i%4 == 3 && bit == 1:
				p.Src, p.Dst, p.NAT = node, server, dnat
			}
			table.Packet(p)
		}
		check := func(ex *trace.Exchange) {
			if _, err := trace.Decode(ex.AppendJSON(nil)); err != nil {
				t.Fatalf("a record that cannot be read: %v", err)
			}
		}
		table.Advance(int64(time.Minute), check)
		table.Flush(check)
	})
}

// Segments of any shape, twice as the same and as the other direction.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 13, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}, uint8(3), uint32(0xfffffff0))
	for _, b := range hostile(f) {
		if len(b) > 1024 {
			continue
		}
		framed := append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
		for _, piece := range []uint8{0, 1, 255} { // a byte a segment, two, all that fits
			f.Add(bytes.Repeat(framed, 3), piece, uint32(0xffffff00))
		}
	}
	f.Add(make([]byte, 64), uint8(0), uint32(1)) // messages of no length
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
