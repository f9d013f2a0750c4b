package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// numberedPacket is a packet of the lookup with a number, whose client and server
// share a namespace.
func numberedPacket(t *testing.T, now int64, kind capture.Kind, n int, answers bool) capture.Packet {
	client := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(20000+n))
	p := capture.Packet{
		Time: now, SKB: uint64(n)<<1 | 1, Kind: kind, Protocol: trace.TransportUDP, NetNS: podNS, IfIndex: 1, IfName: "lo",
		Src: client, Dst: server, Payload: query(t, "example.com.", uint16(n)),
	}
	if answers {
		p.SKB, p.Src, p.Dst = p.SKB-1, server, client
		p.Payload = response(t, "example.com.", uint16(n), dns.RcodeSuccess)
	}
	p.PayloadLen = len(p.Payload)
	return p
}

// A burst of queries that nobody answers fills the tables. When it is over and a
// quiet load goes on, all that it needed is let go of.
func TestBurstIsForgotten(t *testing.T) {
	const burst, second = 20_000, int64(time.Second)
	tbl := New(Config{Ports: []uint16{53}, Wall: wall})
	now := second
	ask := func(n int) {
		q := numberedPacket(t, now, capture.TX, n, false)
		tbl.Packet(&q)
	}
	back := func(ex *trace.Exchange) { tbl.Reuse(ex) }
	for n := range burst {
		now += 1000
		ask(n)
	}
	if len(tbl.open) != burst || cap(tbl.due) < burst {
		t.Fatalf("%d open, expected %d", len(tbl.open), burst)
	}
	kept := func() int {
		n := cap(tbl.due) + tbl.unused.Len() + tbl.records.Len() + len(tbl.lent.now) + len(tbl.lent.before)
		for i := range tbl.paths.free {
			n += cap(tbl.paths.free[i].list)
		}
		return n
	}
	for range 2 * 60 {
		now += second
		ask(1)
		tbl.Advance(now, back)
	}
	if n := kept(); n > 4*spare.Small {
		t.Errorf("two minutes later there is memory for %d exchanges", n)
	}
	// The same load again: what is kept is what it needs, and it goes on so.
	before := kept()
	for range 10 * 60 {
		now += second
		ask(1)
		tbl.Advance(now, back)
	}
	if n := kept(); n > before {
		t.Errorf("under the same load there was memory for %d, and ten minutes later for %d", before, n)
	}
}

// A table that shrinks forgets nothing that is open.
func TestShrinkingKeepsWhatIsOpen(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Timeout: time.Hour, Wall: wall})
	now := int64(time.Second)
	for n := range 100 {
		q := numberedPacket(t, now, capture.TX, n, false)
		tbl.Packet(&q)
	}
	tbl.due = append(make(dueHeap, 0, 100*spare.Small), tbl.due...)
	tbl.peak.next, tbl.peak.conns = 0, 100*spare.Small
	tbl.shrink(now)
	if cap(tbl.due) > spare.Small {
		t.Fatalf("it did not shrink: %d", cap(tbl.due))
	}
	answered := 0
	for n := range 100 {
		now++
		for _, kind := range []capture.Kind{capture.TX, capture.RX} {
			r := numberedPacket(t, now, kind, n, true)
			tbl.Packet(&r)
		}
	}
	tbl.Advance(now+int64(time.Second), func(ex *trace.Exchange) {
		if ex.Outcome == trace.OutcomeAnswered {
			answered++
		}
	})
	if answered != 100 || tbl.Stats().Open != 0 {
		t.Errorf("%d of 100 answered, %d open", answered, tbl.Stats().Open)
	}
}

// A record that was given back becomes that of another exchange, once; one that was
// not stays as it is, as does one that is given back twice or that is a copy.
func TestRecordsAreUsedAgain(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Wall: wall})
	now := int64(time.Second)
	lookup := func(n int) (got *trace.Exchange) {
		for i, response := range []bool{false, true} {
			tx, rx := numberedPacket(t, now+int64(i), capture.TX, n, response), numberedPacket(t, now+int64(i), capture.RX, n, response)
			tbl.Packet(&tx)
			tbl.Packet(&rx)
		}
		now += int64(time.Second)
		tbl.Advance(now, func(ex *trace.Exchange) { got = ex })
		return got
	}
	first, second := lookup(1), lookup(2)
	copied := first.Clone()
	text := string(second.AppendJSON(nil))
	tbl.Reuse(first)
	tbl.Reuse(first)
	tbl.Reuse(copied)
	seen := map[*trace.Exchange]bool{second: true}
	for n := 3; n < 10; n++ {
		ex := lookup(n)
		if seen[ex] {
			t.Fatal("two records in one memory")
		}
		seen[ex] = true
		if ex.ClientPort != uint16(20000+n) || len(ex.Path) != 4 || *ex.Duration != 1 {
			t.Errorf("lookup %d: %s", n, ex.AppendJSON(nil))
		}
	}
	if !seen[first] {
		t.Error("the record that was given back was not used again")
	}
	if now := string(second.AppendJSON(nil)); now != text {
		t.Errorf("a record that was not given back changed from %s to %s", text, now)
	}
}
