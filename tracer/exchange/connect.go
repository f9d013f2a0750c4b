package exchange

import (
	"container/heap"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// connecting notes a packet that asks for a connection, or that accepts one. A
// connection that cannot be opened asks nothing, but somebody waits for it: it is
// an exchange without a question, whose query is the SYN.
func (t *Table) connecting(c *conn, p *capture.Packet, accepts bool) {
	ex := c.attempt
	if ex == nil || ex.closed || !accepts && c.attemptSeq != p.TCPSeq {
		if accepts {
			return
		}
		ex = t.beginConnect(c.client, p)
		c.attempt, c.attemptSeq = ex, p.TCPSeq
	}
	t.see(ex, p, accepts)
	if len(ex.arrived) > 0 {
		t.connected(c)
	}
}

// connected lets go of an attempt that succeeded: it is no exchange.
func (t *Table) connected(c *conn) {
	if ex := c.attempt; ex != nil && !ex.closed {
		heap.Remove(&t.due, ex.index)
		t.forget(ex)
	}
	c.attempt = nil
}

func (t *Table) beginConnect(client netip.AddrPort, p *capture.Packet) *open {
	ex := t.fresh()
	ex.beginConnect(key{client: client, netns: loopbackOf(client, p), protocol: p.Protocol}, p, t.cfg.Wall(p.Time))
	t.add(ex)
	return ex
}

// beginConnect makes ex the exchange of an attempt to connect.
func (ex *open) beginConnect(k key, p *capture.Packet, at time.Time) {
	ex.empty()
	*ex = open{
		emitted: ex.emitted, keys: append(ex.keys[:0], k), name: ex.name[:0], connects: true,
		first: p.Time, wall: at, lastQuery: p.Time, last: p.Time, origin: placeOf(p),
		arrived: ex.arrived[:0], pieces: ex.pieces[:0], fragmented: ex.fragmented[:0],
	}
	r := &ex.record
	r.V, r.Record = trace.Version, trace.KindExchange
	r.ClientIP, r.ClientPort = k.client.Addr(), k.client.Port()
	r.Protocol, r.BufSize = "tcp", dns.MaxMsgSize
	server := p.Dst
	if p.NAT != nil {
		server = p.NAT.Original.Dst
	}
	r.ServerIP, r.ServerPort = server.Addr(), server.Port()
}

// worthTelling is false of an attempt to connect that may have been refused: who
// is refused is told at once, which is not seen here, and does not ask again.
func (ex *open) worthTelling() bool {
	return !ex.connects || ex.dropSeen || ex.record.Transmissions > 1
}
