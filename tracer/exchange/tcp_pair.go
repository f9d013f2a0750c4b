package exchange

import (
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A transparent proxy connects with the addresses and ports of its client: then two
// connections have one key, and are distinguished by their sequence numbers.

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
// whose stream it has its place; c itself if that is so of both.
func (c *conn) of(p *capture.Packet, fromClient bool) *conn {
	o := c.other
	switch {
	case o == nil:
		return c
	case p.Opens():
		if o.query.started == p.TCPSeq+1 || c.query.started != p.TCPSeq+1 && o.opener == p.NetNS {
			return o
		}
	case o.stream(fromClient).away(p) < c.stream(fromClient).away(p):
		return o
	}
	return c
}

// away returns how far from its place in the stream a segment is, in bytes. The kernel
// counts the first number of a connection up with time: those of two with the same
// addresses may be a few thousand apart.
func (s *stream) away(p *capture.Packet) uint32 {
	seq := p.TCPSeq
	if p.TCPFlags&capture.FlagSYN != 0 {
		seq++
	}
	at := s.started
	if n := len(s.cursors); n > 0 {
		at = s.cursors[n-1].next
	} else if !s.begun {
		return maxAhead // none of it came yet
	}
	switch gap := int32(seq - at); {
	case p.TCPFlags&capture.FlagSYN != 0 && seq != s.started:
		return 2 * maxAhead
	case gap == 0, s.carries(seq, p.PayloadLen):
		return 0
	case gap < 0:
		return -uint32(gap)
	default:
		return uint32(gap)
	}
}
