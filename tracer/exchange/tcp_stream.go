package exchange

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Bounds of what is kept of one direction of a connection. A resolver pipelines some
// queries on each (RFC 7766, section 6.2.1.1).
const (
	recentMessages  = 64
	maxMessageBytes = 2048    // of a message: what the programs capture of a segment
	maxCursors      = 4       // holes in the stream, all but one
	maxPending      = 16      // segments that wait for one before them
	maxEarly        = 8       // drops of segments whose message has not come by
	maxAhead        = 1 << 20 // bytes: what is further away is of another connection
)

// message16 is a DNS message with its 16-bit length in front (RFC 1035, section
// 4.2.2).
type message16 struct {
	start, end uint32 // sequence numbers of its length, and behind it
	since      int64  // when its first byte came by
	size       int    // without the length
	body       []byte // as far as captured
	certain    bool   // it begins where a message does; else it only looks like one
}

// stream is one direction of a connection. Its bytes come in order, but for what is
// lost, resent, reordered, or was not seen.
type stream struct {
	started uint32   // first byte, if the SYN was seen
	begun   bool     // it was
	cursors []cursor // in order; the last is the end of what came
	pending []segment
	recent  []carried
	places  []coverage
	early   []earlyDrop
	ended   bool // its FIN was seen, and all before it
}

// earlyDrop is a segment that was dropped before all of its message had come by.
type earlyDrop struct {
	stretch
	packet capture.Packet
}

// cursor is where a stretch of the stream ends.
type cursor struct {
	from    uint32 // where it begins
	next    uint32 // sequence number of the next byte
	start   uint32 // of the message under way
	since   int64  // when that came by
	buf     []byte // of that message, its length included
	have    int    // bytes of it that came by
	certain bool   // from is where a message begins
}

// segment is a stretch of a stream that waits for one before it.
type segment struct {
	seq      uint32
	captured []byte
	n        int
	time     int64
}

// begin sets the stream to its first byte; false if it begins there already: the same
// SYN is seen at many devices.
func (s *stream) begin(seq uint32) bool {
	if s.begun && s.started == seq {
		return false
	}
	*s = stream{begun: true, started: seq, cursors: append(s.cursors[:0], cursor{from: seq, next: seq, certain: true})}
	return true
}

// lose forgets where the stream is; the next segment that looks like the start of a
// message is taken for one.
func (s *stream) lose() {
	s.cursors, s.pending, s.early, s.ended = nil, nil, nil, false
}

// add takes a segment, of which the first bytes were captured, and returns the messages that it completes. ok is false if it cannot be placed.
func (s *stream) add(g segment) (done []message16, ok bool) {
	ok = s.feed(g, &done)
	// What came may be what others wait for.
	for i := 0; i < len(s.pending); {
		next := s.pending[i]
		if s.inHole(next.seq) {
			i++
			continue
		}
		s.pending = slices.Delete(s.pending, i, i+1)
		s.feed(next, &done)
		i = 0
	}
	return done, ok
}

// feed gives a segment to the stretches that it continues.
func (s *stream) feed(g segment, done *[]message16) bool {
	if !s.place(g) {
		return false
	}
	end := g.seq + uint32(g.n)
	for i := 0; i < len(s.cursors); i++ {
		c := &s.cursors[i]
		limit := end
		if i+1 < len(s.cursors) && after(limit, s.cursors[i+1].from) {
			limit = s.cursors[i+1].from
		}
		if after(g.seq, c.next) || !after(limit, c.next) {
			continue
		}
		old := int(c.next - g.seq)
		if !c.advance(segment{c.next, g.captured[min(old, len(g.captured)):], int(limit - c.next), g.time}, done) {
			s.lose()
			return false
		}
		if i+1 < len(s.cursors) && c.next == s.cursors[i+1].from {
			if !s.join(i, done) {
				return false
			}
			i-- // the segment may go on behind what was joined
		}
	}
	return true
}

// join makes one of a stretch and the next, which it has reached; false if the stream
// is lost. A stretch that did not begin with a message, but only looked so, is a part
// of the message under way.
func (s *stream) join(i int, done *[]message16) bool {
	c, next := s.cursors[i], s.cursors[i+1]
	s.cursors = slices.Delete(s.cursors, i, i+1)
	if c.have == 0 {
		s.cursors[i].from, s.cursors[i].certain = c.from, c.certain
		return true
	}
	if next.start != next.from {
		return true // it had messages
	}
	s.cursors[i] = c
	if !s.cursors[i].advance(segment{next.from, next.buf, next.have, next.since}, done) {
		s.lose()
		return false
	}
	return true
}

// place finds where a segment belongs; false if that is unknown, or it has to wait.
func (s *stream) place(g segment) bool {
	if len(s.cursors) == 0 {
		if !plausible(g.captured) {
			return false
		}
		s.cursors = append(s.cursors, cursor{from: g.seq, next: g.seq})
		return true
	}
	last := &s.cursors[len(s.cursors)-1]
	switch gap := int32(g.seq - last.next); {
	case gap > maxAhead, gap < -maxAhead: // another connection with the same ports
		s.lose()
		return s.place(g)
	case gap > 0 && plausible(g.captured):
		// One before it is missing; this one begins a message all the same.
		if len(s.cursors) == maxCursors {
			s.cursors = slices.Delete(s.cursors, 0, 1)
		}
		s.cursors = append(s.cursors, cursor{from: g.seq, next: g.seq})
		return true
	case s.inHole(g.seq):
		s.wait(g)
	}
	return true
}

// inHole tells whether bytes are missing before one: it is behind the end of a stretch,
// and not in the next.
func (s *stream) inHole(seq uint32) bool {
	for i := len(s.cursors) - 1; i >= 0; i-- {
		c := &s.cursors[i]
		if !after(c.from, seq) {
			return after(seq, c.next)
		}
	}
	return false
}

// wait keeps a segment until those before it come.
func (s *stream) wait(g segment) {
	for i := range s.pending {
		if s.pending[i].seq == g.seq && s.pending[i].n >= g.n {
			return
		}
	}
	if len(s.pending) == maxPending {
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	g.captured = slices.Clone(g.captured)
	s.pending = append(s.pending, g)
}

// advance moves a stretch on by a segment; false if the length of a message was not
// captured.
func (c *cursor) advance(g segment, done *[]message16) bool {
	for g.n > 0 {
		if c.have == 0 {
			c.start, c.since = c.next, g.time
		}
		m, used := c.take(&g.captured, g.n)
		if used == 0 {
			return false
		}
		g.n -= used
		c.next += uint32(used)
		if m != nil {
			m.start, m.end, m.since = c.start, c.next, c.since
			*done = append(*done, *m)
		}
	}
	return true
}

// take moves bytes of one message out of a segment with n bytes left. It returns
// how many, 0 if the length of the message was not captured.
func (c *cursor) take(captured *[]byte, n int) (*message16, int) {
	used := 0
	for c.have < 2 && n > used {
		if len(*captured) == 0 {
			return nil, 0
		}
		c.buf = append(c.buf, (*captured)[0])
		*captured = (*captured)[1:]
		c.have++
		used++
	}
	if c.have < 2 {
		return nil, used
	}
	size := int(binary.BigEndian.Uint16(c.buf))
	rest := min(2+size-c.have, n-used)
	part := (*captured)[:min(rest, len(*captured))]
	*captured = (*captured)[len(part):]
	// Bytes behind a hole are of no use.
	if len(c.buf) == c.have {
		c.buf = append(c.buf, part[:min(len(part), max(0, maxMessageBytes-len(c.buf)))]...)
	}
	c.have += rest
	used += rest
	if c.have < 2+size {
		return nil, used
	}
	m := &message16{size: size, body: slices.Clone(c.buf[2:]), certain: c.certain}
	c.buf, c.have = c.buf[:0], 0
	return m, used
}

// at tells whether everything up to a byte came.
func (s *stream) at(seq uint32) bool {
	return len(s.cursors) == 1 && s.cursors[0].next == seq
}

// bytes returns the memory that the stream takes.
func (s *stream) bytes() int {
	n := cap(s.recent)*int(unsafe.Sizeof(carried{})) + cap(s.places)*int(unsafe.Sizeof(coverage{})) +
		cap(s.cursors)*int(unsafe.Sizeof(cursor{})) + cap(s.pending)*int(unsafe.Sizeof(segment{})) + cap(s.early)*int(unsafe.Sizeof(earlyDrop{}))
	for i := range s.cursors {
		n += cap(s.cursors[i].buf)
	}
	for i := range s.pending {
		n += cap(s.pending[i].captured)
	}
	for i := range s.places {
		n += cap(s.places[i].have) * int(unsafe.Sizeof(stretch{}))
	}
	return n
}

// plausible tells whether a segment may start with a message: a length that has room
// for what follows, which is a header and one question.
func plausible(b []byte) bool {
	if len(b) < 2+headerLen {
		return false
	}
	h, err := parseHeader(b[2:], nil)
	return err == nil && h.opcode() <= opcodeUpdate && int(binary.BigEndian.Uint16(b)) >= headerLen+len(h.question)
}

// after compares sequence numbers, which wrap around (RFC 9293, section 3.4).
func after(a, b uint32) bool { return int32(a-b) > 0 }
