package exchange

import (
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Bounds of the connections. A resolver holds a few open for seconds (RFC 7766,
// section 6.2.3).
const (
	maxConns = 16384
	connIdle = 2 * time.Minute
)

type connKey struct {
	client, server netip.AddrPort
	netns          uint32 // as loopbackOf has it
}

// connKeyOf is the key of a connection with these addresses, where p was seen.
func connKeyOf(client, server netip.AddrPort, p *capture.Packet) connKey {
	k := connKey{client: client, server: server, netns: loopbackOf(client, p)}
	if k.netns == 0 {
		k.netns = loopbackOf(server, p)
	}
	return k
}

// conn is a TCP connection. Every segment is seen at many devices; the first
// sighting feeds the stream, all of them note where its messages were.
type conn struct {
	keys           []connKey
	client, server netip.AddrPort // as the client addressed it
	socket         socket
	source         string // how it is known that it has other addresses elsewhere
	opener         uint32 // the namespace that its SYN was sent from; 0: not seen
	other          *conn  // with the same addresses, from another namespace; nil: none
	left           bool   // its client sends no more, and very likely has read all that it wants
	last           int64
	query, answer  stream
	// While nothing has come of it: the attempt to open it, and the number of its
	// SYN.
	attempt    *open
	attemptSeq uint32
	counted    int // bytes
}

// segment takes a TCP packet.
func (t *Table) segment(p *capture.Packet) {
	if p.Kind == capture.Drop && p.Opens() {
		t.stats.NoConnect++
	}
	fromClient, ok := t.fromClient(p)
	if !ok {
		t.stats.Unreadable++
		return
	}
	const ends = capture.FlagRST | capture.FlagFIN
	c := t.connection(p, fromClient, p.Kind != capture.Read && (p.PayloadLen > 0 || p.TCPFlags&ends == 0))
	if c == nil {
		return
	}
	c.last = p.Time
	s := &c.answer
	if fromClient {
		s = &c.query
	}
	seq := p.TCPSeq
	if p.TCPFlags&capture.FlagRST != 0 {
		t.resets(c, p)
		return
	}
	if p.TCPFlags&capture.FlagSYN != 0 {
		seq++ // the SYN itself takes a number
		if s.begin(seq) && fromClient {
			c.answer, c.left = stream{}, false
		}
		t.connecting(c, p, !fromClient)
	}
	if p.PayloadLen > 0 {
		t.connected(c, p.Time)
		t.data(c, s, p, seq, fromClient)
	}
	if p.TCPFlags&capture.FlagFIN != 0 && fromClient {
		c.left = true
		for i := range c.query.recent {
			if ex := c.query.recent[i].ex; !ex.closed {
				t.hurry(ex)
			}
		}
	}
	if p.TCPFlags&capture.FlagFIN != 0 && !fromClient && p.Kind != capture.Drop && (len(s.cursors) == 0 || s.at(seq+uint32(p.PayloadLen))) {
		s.ended = true
		t.closes(c)
	}
	t.accountConn(c)
	for t.connBytes > t.cfg.MaxBytes/2 && len(t.conns) > 0 {
		t.evictConn()
	}
}

// isServer tells whether a port is a DNS server's.
func (t *Table) isServer(port uint16, known bool) bool {
	return known || slices.Contains(t.cfg.Ports, port)
}

// fromClient tells which end sends. Where both ports are a server's, the one who
// opened the connection is the client. Where none is, the server's was
// translated, and connection tracking knows it.
func (t *Table) fromClient(p *capture.Packet) (fromClient, ok bool) {
	src, dst := t.isServer(p.Src.Port(), p.SrcServer), t.isServer(p.Dst.Port(), p.DstServer)
	if src != dst {
		return dst, true
	}
	if p.Opens() {
		return true, true
	}
	if n := p.NAT; n != nil && !src && slices.Contains(t.cfg.Ports, n.Original.Dst.Port()) {
		return p.Src == n.Original.Src || p.Src == n.Reply.Dst, true
	}
	if _, known := t.conns[connKeyOf(p.Src, p.Dst, p)]; known {
		return true, true
	}
	_, known := t.conns[connKeyOf(p.Dst, p.Src, p)]
	return false, known
}

// connection returns the connection of a packet, by the addresses it has here
// and, where connection tracking tells them, those it has elsewhere. Nil if there is
// none and none is to be made.
func (t *Table) connection(p *capture.Packet, fromClient, create bool) *conn {
	here := connKeyOf(p.Src, p.Dst, p)
	if !fromClient {
		here = connKeyOf(p.Dst, p.Src, p)
	}
	keys := [3]connKey{here}
	n := 1
	client, server, source := here.client, here.server, ""
	if p.NAT != nil {
		client, server = p.NAT.Original.Src, p.NAT.Original.Dst
		keys[1] = connKeyOf(p.NAT.Original.Src, p.NAT.Original.Dst, p)
		keys[2] = connKeyOf(p.NAT.Reply.Dst, p.NAT.Reply.Src, p)
		n = 3
	}
	var c *conn
	for _, k := range keys[:n] {
		if c = t.conns[k]; c != nil {
			break
		}
	}
	var other *conn
	if c == nil {
		c, source = t.translatedConn(p, here, fromClient)
	} else if t.opensAnother(c, p) {
		c, other = nil, c
	} else {
		c = c.of(p, fromClient)
	}
	if c == nil {
		if !create {
			return nil
		}
		for len(t.conns) >= maxConns {
			t.evictConn()
		}
		if other != nil && other.other != nil {
			t.forgetConn(other.other)
			other.other = nil
		}
		c = &conn{client: client, server: server, socket: socketOf(p, client), other: other}
		if p.Opens() && p.Kind == capture.TX {
			c.opener = p.NetNS
		}
		t.clients[c.socket] = c
	}
	if source != "" {
		c.source = source
	}
	for _, k := range keys[:n] {
		t.nameConn(c, k)
	}
	t.peak.conns = max(t.peak.conns, len(t.conns))
	return c
}

// nameConn lets a connection be known by a key, too. Another one that was known by it, and by
// no other, is the same connection, of which there is one from here on.
func (t *Table) nameConn(c *conn, k connKey) {
	known := t.conns[k]
	if len(c.keys) >= 3*maxAliases || known == c || known != nil && known.other == c {
		return
	}
	t.conns[k] = c
	c.keys = append(c.keys, k)
	if known == nil || known == c.other {
		return
	}
	if known.keys = slices.DeleteFunc(known.keys, func(its connKey) bool { return its == k }); len(known.keys) == 0 {
		t.forgetConn(known)
	}
}

// translatedConn returns the connection of a packet with addresses that are not known:
// the one whose packet was in the same buffer just before, or that of the same client
// which saw the same bytes.
func (t *Table) translatedConn(p *capture.Packet, here connKey, fromClient bool) (*conn, string) {
	if sent(p, t.buffers.in(p)) && fromClient {
		return nil, ""
	}
	b := t.buffers.within(p, waitsForCPU)
	if b != nil && b.response != fromClient && b.ex.conn != nil && !b.ex.conn.closed() {
		c := b.ex.conn
		if s := c.stream(fromClient); s.carries(p.TCPSeq, p.PayloadLen) || s.begun && s.started == p.TCPSeq+1 {
			return c, trace.NATBuffer
		}
	}
	c := t.clients[socketOf(p, here.client)]
	if c == nil || p.Time-c.last > int64(time.Second) {
		return nil, ""
	}
	s := c.stream(fromClient)
	switch {
	case p.PayloadLen > 0 && s.carries(p.TCPSeq, p.PayloadLen):
	case p.TCPFlags&capture.FlagSYN != 0 && s.begun && s.started == p.TCPSeq+1:
	case !fromClient && p.TCPFlags&capture.FlagSYN != 0 && !s.begun && c.attempt != nil:
	default:
		return nil, ""
	}
	return c, trace.NATMatched
}

func (c *conn) stream(fromClient bool) *stream {
	if fromClient {
		return &c.query
	}
	return &c.answer
}

// closed tells whether the connection is out of the table.
func (c *conn) closed() bool { return len(c.keys) == 0 }

// accountConn keeps the bytes of a connection that has grown.
func (t *Table) accountConn(c *conn) {
	if c.closed() {
		return
	}
	n := int(unsafe.Sizeof(conn{})) + 2*(1+len(c.keys))*(int(unsafe.Sizeof(connKey{}))+8) + c.query.bytes() + c.answer.bytes()
	t.bytes += n - c.counted
	t.connBytes += n - c.counted
	c.counted = n
}

// sweepConns forgets idle connections, once a second.
func (t *Table) sweepConns(now int64) {
	if now < t.sweep {
		return
	}
	t.sweep = now + int64(time.Second)
	t.searches = 0
	for _, c := range t.conns {
		if now-c.last > int64(connIdle) {
			t.forgetConn(c)
			continue
		}
		for ; c != nil; c = c.other {
			c.query.release()
			c.answer.release()
			t.accountConn(c)
		}
	}
}

// evictFrom is of how many connections the one that takes most makes room.
const evictFrom = 8

// evictConn makes room: Go's map order stands in for a random choice, and who sends what
// has to be kept pays for it before others do.
func (t *Table) evictConn() {
	var most *conn
	seen := 0
	for _, c := range t.conns {
		if most == nil || c.counted > most.counted {
			most = c
		}
		if seen++; seen == evictFrom {
			break
		}
	}
	if most != nil {
		t.forgetConn(most)
		t.stats.Evicted++
	}
}

func (t *Table) forgetConn(c *conn) {
	for _, k := range c.keys {
		if t.conns[k] == c {
			delete(t.conns, k)
		}
	}
	if t.clients[c.socket] == c {
		delete(t.clients, c.socket)
	}
	t.bytes -= c.counted
	t.connBytes -= c.counted
	c.keys, c.counted = nil, 0
	if c.other != nil {
		t.forgetConn(c.other)
		c.other = nil
	}
}
