package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A client sends the same query, from one socket and with one ID, to ever new addresses: each
// would have to be looked through for every packet of the others. The oldest of them makes
// room, counted; other clients' lookups stay.
func TestSameQueryToEveryAddress(t *testing.T) {
	tbl := New(Config{Ports: []uint16{53}, Wall: wall})
	now := int64(time.Second)
	other := numberedPacket(t, now, tx, 1, false)
	tbl.Packet(&other)
	const addresses = 20_000
	reported, victim := 0, 0
	count := func(ex *trace.Exchange) {
		reported++
		if ex.ClientPort == other.Src.Port() && ex.Outcome == trace.OutcomeAnswered && ex.LostEvents == 0 {
			victim++
		}
	}
	for n := range addresses {
		p := numberedPacket(t, now, tx, 2, false)
		p.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), 53)
		for _, kind := range []capture.Kind{tx, rx} {
			now += 1000
			p.Time, p.Kind, p.SKB = now, kind, uint64(n)<<1|1
			tbl.Packet(&p)
		}
		if n%100 == 0 {
			tbl.Advance(now, count)
			for _, e := range tbl.due {
				if s := tbl.at(e.Item.key); s.len() > maxWithKey {
					t.Fatalf("%d are looked through for a packet", s.len())
				}
			}
		}
	}
	for _, kind := range []capture.Kind{tx, rx} {
		now++
		r := numberedPacket(t, now, kind, 1, true)
		tbl.Packet(&r)
	}
	if s := tbl.Stats(); s.Evicted < addresses-maxWithKey || s.Open > 1+maxWithKey {
		t.Errorf("%+v", s)
	}
	tbl.Advance(now+int64(time.Minute), count)
	if reported != addresses+1 || victim != 1 {
		t.Errorf("%d reported, expected %d; %d of the other client", reported, addresses+1, victim)
	}
}
