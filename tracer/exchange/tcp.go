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
	c := t.connection(p, fromClient, p.PayloadLen > 0 || p.TCPFlags&ends == 0)
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
			c.answer = stream{}
		}
		t.connecting(c, p, !fromClient)
	}
	if p.PayloadLen > 0 {
		t.connected(c, p.Time)
		t.data(c, s, p, seq, fromClient)
	}
	if p.TCPFlags&capture.FlagFIN != 0 && !fromClient && p.Kind != capture.Drop && s.at(seq+uint32(p.PayloadLen)) {
		s.ended = true
		t.closes(c)
	}
	t.accountConn(c)
}

// data takes the bytes of a segment.
func (t *Table) data(c *conn, s *stream, p *capture.Packet, seq uint32, fromClient bool) {
	n := p.PayloadLen
	// A dropped segment reaches nobody, but says what it carried all the same.
	done, ok := s.add(segment{seq, p.Payload, n, p.Time})
	if !ok {
		t.stats.Unreadable++
	}
	var here *coverage
	if p.Kind != capture.Drop {
		here = s.cover(p, seq, n)
	} else if !duplicate(p.Reason) {
		s.uncover(p.NetNS, seq, n)
		s.drops(p, seq, n)
	}
	fresh := sent(p, t.buffers.in(p))
	for i := range done {
		t.complete(c, s, p, &done[i], fromClient)
	}
	for i := range s.recent {
		m := &s.recent[i]
		if m.ex.closed || !m.in(seq, n) {
			continue
		}
		whole := here != nil && here.has(m.start, m.end)
		// Of a message in several segments, the last one and the one that completes it
		// are sightings.
		if here != nil && !m.endsIn(seq, n) && (!whole || m.ex.wholeAt(p, !fromClient)) {
			continue
		}
		if m.why != accepted {
			t.rejectCarried(m, p, whole)
			continue
		}
		m.ex.sent = fresh
		if fromClient {
			t.translated(m.ex, p, c.source)
		} else {
			t.translatedResponse(m.ex, p)
		}
		t.see(m.ex, p, !fromClient, whole)
		t.buffers.note(p, m.ex, !fromClient)
	}
}

// wholeAt tells whether a message was seen whole in the namespace of a packet.
func (ex *open) wholeAt(p *capture.Packet, response bool) bool {
	return slices.ContainsFunc(ex.marks, func(m mark) bool {
		return m.netns == p.NetNS && m.kind == p.Kind && m.is(isWhole) && m.is(inResponse) == response
	})
}

// complete finds the exchange of a message whose bytes have all come by.
func (t *Table) complete(c *conn, s *stream, p *capture.Packet, m16 *message16, fromClient bool) {
	m := message{body: m16.body, size: m16.size}
	known := carried{start: m16.start, end: m16.end, size: m16.size}
	h, err := parseHeader(m.body)
	m.header = h
	switch {
	case err == nil && fromClient && !h.response():
		known.ex = t.query(p, &m, c.client, c.server)
		if known.ex != nil {
			known.ex.beginsOn(c, m16.since, t.cfg.Wall)
			if c.answer.ended {
				t.end(known.ex) // on a connection that the server has closed
			}
		}
	case fromClient:
	case err == nil && h.response():
		t.answerOf(c, p, &m, &known)
	default:
		t.unreadableOn(c, &m, &known)
	}
	if known.ex == nil {
		t.stats.NotDNS++
		if err != nil && !m16.certain {
			s.lose() // it was no message: we are out of step with the stream
		}
		return
	}
	t.earlyDrops(s, &known, !fromClient)
	s.remember(known)
}

// beginsOn puts an exchange on its connection, where it began with the first byte of its
// query.
func (ex *open) beginsOn(c *conn, since int64, wall func(int64) time.Time) {
	if ex.conn != nil {
		return // known by another of its connection's addresses
	}
	ex.conn = c
	if since < ex.first {
		ex.first, ex.wall = since, wall(since)
	}
}

// drops keeps the drop of a segment until its message is known.
func (s *stream) drops(p *capture.Packet, seq uint32, n int) {
	if s.at(seq+uint32(n)) && s.cursors[0].have == 0 || len(s.early) == maxEarly {
		return
	}
	e := earlyDrop{stretch{seq, seq + uint32(n)}, *p}
	e.packet.Payload, e.packet.NAT = nil, nil
	s.early = append(s.early, e)
}

// earlyDrops gives a message the drops of its segments before it was known.
func (t *Table) earlyDrops(s *stream, m *carried, response bool) {
	s.early = slices.DeleteFunc(s.early, func(e earlyDrop) bool {
		if after(m.end, e.from) && after(e.to, m.start) && m.why == accepted {
			t.keepDrop(m.ex, &e.packet, response)
		}
		return !after(e.to, m.end)
	})
}

// answerOf finds the exchange of a response with a question.
func (t *Table) answerOf(c *conn, p *capture.Packet, m *message, known *carried) {
	s := t.at(keyOf(p, &m.header, c.client))
	for i := range s.len() {
		ex := s.at(i)
		if (ex.conn == c || ex.goesTo(p.Src)) && (known.ex == nil || known.ex.answer != nil && ex.answer == nil) {
			known.ex = ex
		}
	}
	if known.ex == nil {
		known.why = wrongID
		if known.ex = t.outstanding(c, func(ex *open) bool { return ex.key.id == m.id }); known.ex != nil {
			known.why = wrongQuestion
		} else {
			known.ex = t.outstanding(c, func(*open) bool { return true })
		}
		known.rcode = int(m.flags & 0xf)
		return
	}
	t.takeOn(m, known)
}

func (t *Table) takeOn(m *message, known *carried) {
	a := readAnswer(m)
	known.why, known.rcode = a.rejection, a.rcode
	if a.rejection == accepted {
		known.ex.take(a, false)
	}
}

// unreadableOn finds the exchange of a response without a question, or of what is no
// response.
func (t *Table) unreadableOn(c *conn, m *message, known *carried) {
	known.why = malformed
	h, bare := parseBare(m.body)
	if !bare {
		// Where a message begins is known only if it began there before.
		if len(c.answer.cursors) == 0 || !c.answer.cursors[0].certain || len(m.body) < min(m.size, headerLen) {
			return
		}
		known.ex = t.outstanding(c, func(*open) bool { return true })
		return
	}
	m.header = h
	if known.ex = t.outstanding(c, func(ex *open) bool { return ex.key.id == h.id }); known.ex != nil {
		t.takeOn(m, known)
		return
	}
	known.why, known.rcode = wrongID, int(h.flags&0xf)
	known.ex = t.outstanding(c, func(*open) bool { return true })
}

// outstanding returns the one exchange on a connection that waits for its response and
// is like it; nil if there are several.
func (t *Table) outstanding(c *conn, like func(*open) bool) *open {
	var found *open
	for i := range c.query.recent {
		ex := c.query.recent[i].ex
		if ex.closed || ex == found || ex.answer != nil || !like(ex) {
			continue
		}
		if found != nil {
			return nil
		}
		found = ex
	}
	return found
}

// rejectCarried puts a message that its receiver cannot take on the record, where it
// comes to it.
func (t *Table) rejectCarried(m *carried, p *capture.Packet, whole bool) {
	m.ex.last = max(m.ex.last, p.Time)
	if m.counted || !whole || !m.ex.atClient(p) {
		return
	}
	m.counted = true
	r := trace.Rejection{Why: rejections[m.why], Src: p.Src, Size: m.size, Offset: trace.Seconds(p.Time - m.ex.first)}
	if m.why != malformed {
		r.RCode = rcodeName(m.rcode)
	}
	t.rejected(m.ex, r)
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
	if c == nil {
		c, source = t.translatedConn(p, here, fromClient)
	}
	if c == nil {
		if !create {
			return nil
		}
		for len(t.conns) >= maxConns || t.connBytes > t.cfg.MaxBytes/2 {
			t.evictConn()
		}
		c = &conn{client: client, server: server, socket: socketOf(p, client)}
		t.clients[c.socket] = c
	}
	if source != "" {
		c.source = source
	}
	for _, k := range keys[:n] {
		if len(c.keys) < 3*maxAliases && t.conns[k] != c {
			t.conns[k] = c
			c.keys = append(c.keys, k)
		}
	}
	t.peak.conns = max(t.peak.conns, len(t.conns))
	return c
}

// translatedConn returns the connection of a packet with addresses that are not known:
// the one whose packet was in the same buffer just before, or that of the same client
// which saw the same bytes.
func (t *Table) translatedConn(p *capture.Packet, here connKey, fromClient bool) (*conn, string) {
	b := t.buffers.in(p)
	if sent(p, b) && fromClient {
		return nil, ""
	}
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
		c.query.release()
		c.answer.release()
		t.accountConn(c)
	}
}

// evictConn makes room: Go's map order stands in for random replacement.
func (t *Table) evictConn() {
	for _, c := range t.conns {
		t.forgetConn(c)
		t.stats.Evicted++
		return
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
}
