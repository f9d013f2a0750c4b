package exchange

import (
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A transparent proxy connects with the addresses and ports of its client: then two
// connections have one key, and are told apart by their sequence numbers.

// opensAnother tells whether a SYN opens a second connection with the addresses of c: a
// socket of another namespace sends it, and it is none of c's.
func (t *Table) opensAnother(c *conn, p *capture.Packet) bool {
	if !p.Opens() || c.opener == 0 || c.opener == p.NetNS || !c.query.begun || c.query.started == p.TCPSeq+1 {
		return false
	}
	if o := c.other; o != nil && (o.opener == p.NetNS || o.query.started == p.TCPSeq+1) {
		return false
	}
	return sent(p, t.buffers.in(p))
}

// of returns which of the connections with the addresses of c a packet is of: the one in
// whose stream it has a place; c itself if neither or both have.
func (c *conn) of(p *capture.Packet, fromClient bool) *conn {
	o := c.other
	switch {
	case o == nil:
		return c
	case p.Opens():
		if o.query.started == p.TCPSeq+1 || c.query.started != p.TCPSeq+1 && o.opener == p.NetNS {
			return o
		}
	case !c.stream(fromClient).near(p.TCPSeq) && o.stream(fromClient).near(p.TCPSeq):
		return o
	}
	return c
}

// near tells whether a segment can be of the stream.
func (s *stream) near(seq uint32) bool {
	at := s.started
	if n := len(s.cursors); n > 0 {
		at = s.cursors[n-1].next
	} else if !s.begun {
		return false
	}
	gap := int32(seq - at)
	return -maxAhead <= gap && gap <= maxAhead
}
