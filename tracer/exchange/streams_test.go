package exchange

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A client opens as many connections as are remembered, and then sends on each of them what
// has to wait for a byte that never comes: the connections grow no further than a table may,
// those that had to go are counted, and the lookups of others stay.
func TestGrowingConnectionsAreBounded(t *testing.T) {
	const limit, conns, others = 8 << 20, 2000, 100
	tbl := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: limit})
	now := int64(time.Second)
	for n := range conns {
		now += 1000
		p := numberedPacket(t, now, tx, n, false)
		p.Protocol, p.TCPFlags, p.TCPSeq, p.Payload, p.PayloadLen = trace.TransportTCP, capture.FlagSYN, 99, nil, 0
		tbl.Packet(&p)
	}
	for n := range others {
		now += 1000
		q := numberedPacket(t, now, tx, conns+n, false)
		tbl.Packet(&q)
	}
	before := heapInUse()
	for s := range maxPending {
		for n := range conns {
			now += 1000
			p := numberedPacket(t, now, tx, n, false)
			p.Protocol, p.TCPFlags, p.TCPSeq = trace.TransportTCP, capture.FlagACK, uint32(1000+3000*s)
			p.Payload = make([]byte, maxMessageBytes)
			p.PayloadLen = len(p.Payload)
			tbl.Packet(&p)
		}
	}
	s := tbl.Stats()
	if s.Bytes > limit || s.Evicted == 0 {
		t.Errorf("%+v, %d connections", s, len(tbl.conns))
	}
	if used := heapInUse() - before; used > 2*limit {
		t.Errorf("it takes %d bytes, and counts %d", used, s.Bytes)
	}
	open := 0
	for _, e := range tbl.due {
		if e.Item.key.protocol == trace.TransportUDP {
			open++
		}
	}
	if open != others {
		t.Errorf("of %d lookups of others %d are there still", others, open)
	}
}

// A client sends to a Service and, from the same port, to the pod behind it, before a
// translated packet shows that both are one connection: what was counted of the one that is
// given up is counted no more. Else the table would be full of nothing in the end.
func TestConnectionsThatAreOneAreCountedOnce(t *testing.T) {
	service := netip.MustParseAddrPort("10.96.0.10:53")
	tbl := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: 1 << 20})
	now := int64(time.Second)
	for n := range 10_000 {
		send := func(to netip.AddrPort, flags uint8, seq uint32, bytes int, nat *capture.NAT) {
			now += 1000
			p := numberedPacket(t, now, tx, n, false)
			p.Protocol, p.TCPFlags, p.TCPSeq, p.Dst, p.NAT = trace.TransportTCP, flags, seq, to, nat
			p.Payload, p.PayloadLen = make([]byte, bytes), bytes
			tbl.Packet(&p)
		}
		send(service, capture.FlagSYN, 99, 0, nil)
		send(server, capture.FlagSYN, 99, 0, nil)
		send(server, capture.FlagACK, 5000, maxMessageBytes, nil) // which waits for those before it
		client := numberedPacket(t, now, tx, n, false).Src
		send(service, capture.FlagACK, 100, 0, &capture.NAT{Original: capture.Tuple{Src: client, Dst: service}, Reply: capture.Tuple{Src: server, Dst: client}})
	}
	for range 2 {
		now += int64(2 * connIdle)
		tbl.Advance(now, func(*trace.Exchange) {})
	}
	if s := tbl.Stats(); s.Bytes != 0 || len(tbl.conns) != 0 || len(tbl.clients) != 0 {
		t.Errorf("%+v, %d connections, %d clients", s, len(tbl.conns), len(tbl.clients))
	}
}

// Whatever a few hosts send each other, with and without translations, in the worst order:
// what is forgotten in the end was counted before, and nothing is left.
func TestWhatIsForgottenIsNotCounted(t *testing.T) {
	addr := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n / 2)}), []uint16{53, 1024}[n%2])
	}
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		tbl := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: []int{1 << 14, 1 << 16, 1 << 20}[seed%3]})
		now := int64(time.Second)
		for range 3000 {
			now += int64(rnd.IntN(int(10 * time.Millisecond)))
			p := numberedPacket(t, now, []capture.Kind{tx, rx, capture.Drop, capture.Delivered, capture.Read}[rnd.IntN(5)], rnd.IntN(4), rnd.IntN(2) == 0)
			p.Src, p.Dst, p.NetNS, p.IfIndex, p.SKB = addr(rnd.IntN(6)), addr(rnd.IntN(6)), uint32(rnd.IntN(3)), uint32(rnd.IntN(3)), uint64(rnd.IntN(4))
			if rnd.IntN(3) > 0 {
				p.Protocol, p.TCPFlags = trace.TransportTCP, uint8(1<<rnd.IntN(5))
				p.TCPSeq = uint32(rnd.IntN(4)) * 500
				p.Payload = append([]byte{byte(rnd.IntN(2)), byte(len(p.Payload))}, p.Payload...)
				if p.TCPFlags == capture.FlagSYN {
					p.Payload = nil
				}
				p.PayloadLen = len(p.Payload)
			}
			if rnd.IntN(3) == 0 {
				p.NAT = &capture.NAT{Original: capture.Tuple{Src: p.Src, Dst: addr(rnd.IntN(6))}, Reply: capture.Tuple{Src: addr(rnd.IntN(6)), Dst: addr(rnd.IntN(6))}}
			}
			tbl.Packet(&p)
			if rnd.IntN(10) == 0 {
				tbl.Advance(now, func(*trace.Exchange) {})
			}
		}
		for range 3 {
			now += int64(2 * connIdle)
			tbl.Advance(now, func(*trace.Exchange) {})
		}
		if s := tbl.Stats(); s.Bytes != 0 || s.Open != 0 || len(tbl.conns) != 0 || len(tbl.clients) != 0 || tbl.connBytes != 0 {
			t.Fatalf("seed %d: %+v, %d connections of %d bytes, %d clients", seed, s, len(tbl.conns), tbl.connBytes, len(tbl.clients))
		}
	}
}
