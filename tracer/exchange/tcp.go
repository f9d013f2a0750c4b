package exchange

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Bounds of what is kept for TCP. A resolver holds a few connections open for
// seconds (RFC 7766, section 6.2.3) and pipelines some queries on each.
const (
	maxConns        = 16384
	connIdle        = 2 * time.Minute
	recentMessages  = 64
	maxMessageBytes = 2048 // of a message: what the programs capture of a segment
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
	keys   []connKey
	client netip.AddrPort // before translation
	last   int64
	query  stream
	answer stream
	// While nothing has come of it: the attempt to open it, and the number of its
	// SYN.
	attempt    *open
	attemptSeq uint32
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
	c := t.connection(p, fromClient)
	c.last = p.Time
	s := &c.answer
	if fromClient {
		s = &c.query
	}
	seq := p.TCPSeq
	if p.TCPFlags&capture.FlagSYN != 0 {
		t.connecting(c, p, !fromClient)
		seq++ // the SYN itself takes a number
		s.begin(seq)
	}
	if p.PayloadLen == 0 {
		return
	}
	t.connected(c)
	// A dropped segment reaches nobody, but says what it carried all the same.
	done, ok := s.add(seq, p.Payload, p.PayloadLen)
	if !ok {
		t.stats.Unreadable++
	}
	for i := range done {
		t.complete(c, s, p, done[i])
	}
	for i := range s.recent {
		if m := &s.recent[i]; m.endsIn(seq, p.PayloadLen) {
			t.see(m.ex, p, !fromClient)
		}
	}
}

// complete finds the exchange of a message whose last byte was seen.
func (t *Table) complete(c *conn, s *stream, p *capture.Packet, m message16) {
	var ex *open
	if h, err := parseHeader(m.body); err == nil {
		ex = t.find(p, h, c.client, m.body, m.size)
	} else if ex = t.bare(p, c.client, m.body, m.size); ex == nil {
		// Not a message: we are out of step with the stream.
		t.stats.NotDNS++
		s.lose()
	}
	if ex != nil {
		s.remember(m.end, ex)
	}
}

// fromClient tells which end sends. Where both ports are a server's, the one who
// opened the connection is the client. Where none is, the server's was
// translated, and connection tracking knows it.
func (t *Table) fromClient(p *capture.Packet) (fromClient, ok bool) {
	src, dst := slices.Contains(t.cfg.Ports, p.Src.Port()), slices.Contains(t.cfg.Ports, p.Dst.Port())
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
// and, where connection tracking tells them, those it has elsewhere.
func (t *Table) connection(p *capture.Packet, fromClient bool) *conn {
	here := connKeyOf(p.Src, p.Dst, p)
	if !fromClient {
		here = connKeyOf(p.Dst, p.Src, p)
	}
	keys := [3]connKey{here}
	n := 1
	client := here.client
	if p.NAT != nil {
		client = p.NAT.Original.Src
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
		if len(t.conns) >= maxConns {
			t.evictConn()
		}
		c = &conn{client: client}
	}
	for _, k := range keys[:n] {
		if t.conns[k] != c {
			t.conns[k] = c
			c.keys = append(c.keys, k)
		}
	}
	t.peak.conns = max(t.peak.conns, len(t.conns))
	return c
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
}

// message16 is a DNS message with its 16-bit length in front (RFC 1035, section
// 4.2.2).
type message16 struct {
	end  uint32 // sequence number behind it
	size int    // without the length
	body []byte // as far as captured
}

// known is a message of the stream that belongs to an exchange.
type known struct {
	end uint32
	ex  *open
}

// endsIn tells whether the message's last byte is in the segment: then the whole
// message has come by.
func (k *known) endsIn(seq uint32, n int) bool {
	return after(k.end, seq) && !after(k.end, seq+uint32(n))
}

// stream is one direction of a connection.
type stream struct {
	synced  bool
	started uint32 // where begin last set it
	next    uint32 // sequence number of the next byte
	buf     []byte // of the message under way, its length included
	have    int    // bytes of it that came by
	recent  []known
}

// begin sets the stream to its first byte; the same SYN is seen at many devices.
func (s *stream) begin(seq uint32) {
	if s.synced && s.started == seq {
		return
	}
	*s = stream{synced: true, started: seq, next: seq, recent: s.recent[:0]}
}

// lose drops what was under way; the next segment that looks like the start of a
// message is taken for one.
func (s *stream) lose() {
	s.synced = false
	s.buf, s.have = s.buf[:0], 0
}

// add takes a segment of n bytes, of which the first were captured, and returns
// the messages that it completes. ok is false if it cannot be placed.
func (s *stream) add(seq uint32, captured []byte, n int) (done []message16, ok bool) {
	if s.synced && after(seq, s.next) {
		s.lose() // a segment in between was not seen
	}
	if !s.synced {
		if !plausible(captured) {
			return nil, false
		}
		s.synced, s.next = true, seq
	}
	old := int(s.next - seq) // bytes that came by before
	if old >= n {
		return nil, true
	}
	captured = captured[min(old, len(captured)):]
	n -= old
	for n > 0 {
		m, used := s.take(&captured, n)
		n -= used
		s.next += uint32(used)
		if used == 0 {
			s.lose()
			return done, false
		}
		if m != nil {
			m.end = s.next
			done = append(done, *m)
		}
	}
	return done, true
}

// take moves bytes of one message out of a segment with n bytes left. It returns
// how many, 0 if the length of the message was not captured.
func (s *stream) take(captured *[]byte, n int) (*message16, int) {
	used := 0
	for s.have < 2 && n > used {
		if len(*captured) == 0 {
			return nil, 0
		}
		s.buf = append(s.buf, (*captured)[0])
		*captured = (*captured)[1:]
		s.have++
		used++
	}
	if s.have < 2 {
		return nil, used
	}
	size := int(binary.BigEndian.Uint16(s.buf))
	rest := min(2+size-s.have, n-used)
	part := (*captured)[:min(rest, len(*captured))]
	*captured = (*captured)[len(part):]
	// Bytes behind a hole are of no use.
	if len(s.buf) == s.have {
		s.buf = append(s.buf, part[:min(len(part), max(0, maxMessageBytes-len(s.buf)))]...)
	}
	s.have += rest
	used += rest
	if s.have < 2+size {
		return nil, used
	}
	m := &message16{size: size, body: slices.Clone(s.buf[2:])}
	s.buf, s.have = s.buf[:0], 0
	return m, used
}

func (s *stream) remember(end uint32, ex *open) {
	if len(s.recent) >= recentMessages {
		s.release()
	}
	if len(s.recent) >= recentMessages {
		s.recent = slices.Delete(s.recent, 0, recentMessages/2)
	}
	s.recent = append(s.recent, known{end, ex})
}

// release lets go of exchanges that are over: a connection may stay open long
// after.
func (s *stream) release() {
	s.recent = slices.DeleteFunc(s.recent, func(k known) bool { return k.ex.closed })
}

// plausible tells whether a segment may start with a message: a length that has
// room for a header, and one question.
func plausible(b []byte) bool {
	return len(b) >= 2+headerLen && binary.BigEndian.Uint16(b) >= headerLen && binary.BigEndian.Uint16(b[6:]) == 1
}

// after compares sequence numbers, which wrap around (RFC 9293, section 3.4).
func after(a, b uint32) bool { return int32(a-b) > 0 }
