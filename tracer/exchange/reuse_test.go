package exchange

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// The memory of an exchange that is over is another's soon after. What named the first one,
// as the buffer of its packets and the fragments of its query did, does not name the second.
func TestMemoryIsUsedAgainForAnother(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Wall: wall})
	pass := func(now int64) (done []*trace.Exchange) {
		tbl.Advance(now, func(ex *trace.Exchange) { done = append(done, ex) })
		return done
	}
	const minute = int64(time.Minute)
	now := int64(time.Second)
	fragment := func(n int, id uint32, offset int) capture.Packet {
		p := numberedPacket(t, now, tx, n, false)
		p.Fragment = &capture.Fragment{ID: id, Offset: offset, Length: 100, More: offset == 0}
		return p
	}
	// The second has the address and the number of the datagram of the first, which moves to it.
	first, again := fragment(1, 7, 0), fragment(1, 7, 0)
	again.Payload = query(t, "other.example.com.", 2)
	for _, p := range []capture.Packet{first, again} {
		tbl.Packet(&p)
	}
	if tbl.keys.Len() != 2 {
		t.Fatalf("%d open", tbl.keys.Len())
	}
	now += minute
	if done := pass(now); len(done) != 2 {
		t.Fatalf("%d passed on", len(done))
	}
	now += minute
	pass(now)
	if tbl.keys.Len() != 0 || len(tbl.datagrams) != 0 {
		t.Fatalf("%d open, and %d datagrams are left", tbl.keys.Len(), len(tbl.datagrams))
	}
	for n := range 2 {
		p := numberedPacket(t, now, tx, 10+n, false)
		tbl.Packet(&p)
	}
	rest := fragment(1, 7, 100)
	tbl.Packet(&rest)
	if tbl.Stats().Orphans != 1 {
		t.Errorf("the rest of a datagram of one that is over: %+v", tbl.Stats())
	}
	reused := tbl.due[0].Item
	tbl.buffers.note(&rest, reused, false)
	tbl.remove(reused)
	p := numberedPacket(t, now, tx, 20, false)
	tbl.Packet(&p)
	if tbl.due[len(tbl.due)-1].Item != reused {
		t.Fatal("its memory is not used again")
	}
	if b := tbl.buffers.in(&rest); b != nil {
		t.Error("the buffer names the exchange that is in the memory of its own")
	}
}
