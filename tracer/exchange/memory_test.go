package exchange

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// numberedPacket is a packet of the lookup with a number, whose client and server
// share a namespace.
func numberedPacket(t *testing.T, now int64, kind capture.Kind, n int, answers bool) capture.Packet {
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + n>>14)}), uint16(20000+n&(1<<14-1)))
	p := capture.Packet{
		Time: now, SKB: uint64(n)<<1 | 1, Kind: kind, Protocol: trace.TransportUDP, NetNS: podNS, IfIndex: 1, IfName: "lo",
		Src: client, Dst: server, Payload: query(t, "example.com.", uint16(n)), PID: 42, Comm: "dnsperf",
	}
	if answers {
		p.SKB, p.Src, p.Dst, p.PID = p.SKB-1, server, client, 0
		p.Payload = response(t, "example.com.", uint16(n), dns.RcodeSuccess)
	}
	p.PayloadLen = len(p.Payload)
	return p
}

// heapInUse returns the bytes in use.
func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Ten thousand questions a second that nobody answers: the table takes no more memory
// than it may, what it evicts is counted, and what it counts as bytes is what it
// takes.
func TestUnansweredLoadIsBounded(t *testing.T) {
	const perSecond, seconds = 10_000, 15
	tbl := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: 8 << 20})
	before := heapInUse()
	now, reported := int64(time.Second), 0
	count := func(ex *trace.Exchange) {
		if !ex.Replaces {
			reported++
		}
	}
	for n := range perSecond * seconds {
		now += int64(time.Second) / perSecond
		for _, kind := range []capture.Kind{tx, rx} {
			p := numberedPacket(t, now, kind, n, false)
			tbl.Packet(&p)
		}
		if n%200 == 0 {
			tbl.Advance(now, count)
		}
	}
	tbl.Advance(now, count)
	s := tbl.Stats()
	if s.Bytes > 8<<20 || s.Evicted == 0 || s.Open == 0 {
		t.Errorf("%+v", s)
	}
	if used := heapInUse() - before; used > 12<<20 || used < s.Bytes/2 {
		t.Errorf("it takes %d bytes, and counts %d; %d exchanges", used, s.Bytes, s.Open)
	}
	open := 0
	for _, e := range tbl.due {
		if e.Item.reported == 0 {
			open++
		}
	}
	if reported+open != perSecond*seconds {
		t.Errorf("%d reported, %d open, of %d", reported, open, perSecond*seconds)
	}
	runtime.KeepAlive(tbl)
}

// Connections are bounded too.
func TestConnectionsAreBounded(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Wall: wall, MaxBytes: 1 << 20})
	for n := range 20_000 {
		p := numberedPacket(t, int64(n)*1000, tx, n, false)
		p.Protocol, p.TCPFlags, p.Payload, p.PayloadLen = trace.TransportTCP, capture.FlagSYN, nil, 0
		tbl.Packet(&p)
	}
	if s := tbl.Stats(); s.Bytes > 1<<20+1<<12 || s.Evicted == 0 {
		t.Errorf("%+v, %d connections", s, len(tbl.conns))
	}
}

// A burst of queries that nobody answers fills the tables. When it is over and a
// quiet load goes on, all that it needed is released.
func TestBurstIsForgotten(t *testing.T) {
	const burst, second = 15_000, int64(time.Second)
	tbl := New(Config{Ports: []uint16{53}, Wall: wall})
	now := second
	ask := func(n int) {
		q := numberedPacket(t, now, tx, n, false)
		tbl.Packet(&q)
	}
	for n := range burst {
		now += 1000
		ask(n)
	}
	if tbl.keys.Len() != burst || cap(tbl.due) < burst {
		t.Fatalf("%d open, expected %d", tbl.keys.Len(), burst)
	}
	for range 2 * 60 {
		now += second
		ask(1)
		tbl.Advance(now, func(*trace.Exchange) {})
	}
	if cap(tbl.due) > freelist.Small || cap(tbl.evicted) > freelist.Small {
		t.Errorf("two minutes later there is memory for %d exchanges", cap(tbl.due))
	}
	if s := tbl.Stats(); s.Bytes > 1<<14 {
		t.Errorf("%+v", s)
	}
}

// A table that shrinks forgets nothing that is open.
func TestShrinkingKeepsWhatIsOpen(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Timeout: time.Hour, Wall: wall})
	now := int64(time.Second)
	for n := range 100 {
		q := numberedPacket(t, now, tx, n, false)
		tbl.Packet(&q)
	}
	tbl.due = append(make(agenda.Of[*open], 0, 100*freelist.Small), tbl.due...)
	tbl.peak.next, tbl.peak.conns = 0, 100*freelist.Small
	tbl.shrink(now)
	if cap(tbl.due) > freelist.Small {
		t.Fatalf("it did not shrink: %d", cap(tbl.due))
	}
	answered := 0
	for n := range 100 {
		now++
		for _, kind := range []capture.Kind{tx, rx} {
			r := numberedPacket(t, now, kind, n, true)
			tbl.Packet(&r)
		}
	}
	tbl.Advance(now+int64(time.Second), func(ex *trace.Exchange) {
		if ex.Outcome == trace.OutcomeAnswered {
			answered++
		}
	})
	if answered != 100 || tbl.Stats().Open != 0 || tbl.Stats().Bytes != 0 || tbl.sockets.Len() != 0 {
		t.Errorf("%d of 100 answered, %+v", answered, tbl.Stats())
	}
}
