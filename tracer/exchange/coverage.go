package exchange

import (
	"slices"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// carried is a message of a stream that belongs to an exchange.
type carried struct {
	start, end uint32
	ex         *open
	why        rejection // accepted, or why its receiver cannot take it
	rcode      int       // of one that it cannot
	size       int
	counted    bool // its rejection is on the record
}

// in tells whether a segment has a part of the message.
func (m *carried) in(seq uint32, n int) bool {
	return after(m.end, seq) && after(seq+uint32(n), m.start)
}

// endsIn tells whether a segment has the message's last byte.
func (m *carried) endsIn(seq uint32, n int) bool {
	return after(m.end, seq) && !after(m.end, seq+uint32(n))
}

// remember keeps a message, to know its segments at other places.
func (s *stream) remember(m carried) {
	if len(s.recent) >= recentMessages {
		s.release()
	}
	if len(s.recent) >= recentMessages {
		s.recent = slices.Delete(s.recent, 0, recentMessages/2)
	}
	s.recent = append(s.recent, m)
}

// release drops the exchanges that are over: a connection may stay open long
// after.
func (s *stream) release() {
	s.recent = slices.DeleteFunc(s.recent, func(m carried) bool { return m.ex.closed })
	if len(s.recent) == 0 {
		s.recent = nil
	}
}

// Bounds of the bytes that are known to have come to each place.
const (
	maxCovered   = 24 // places
	maxStretches = 8  // of one place, that are apart
)

// coverage is which bytes of a stream came to a place.
type coverage struct {
	netns, ifindex uint32
	kind           capture.Kind
	have           []stretch // apart, in order of time but for those that grew
}

// stretch is a part of a stream.
type stretch struct{ from, to uint32 }

// cover notes that a segment came to a place.
func (s *stream) cover(p *capture.Packet, seq uint32, n int) *coverage {
	c := s.placeOf(p)
	if c == nil {
		if len(s.places) >= maxCovered {
			s.places = slices.Delete(s.places, 0, 1)
		}
		s.places = append(s.places, coverage{netns: p.NetNS, ifindex: p.IfIndex, kind: p.Kind})
		c = &s.places[len(s.places)-1]
	}
	c.add(stretch{seq, seq + uint32(n)})
	return c
}

// placeOf returns what came where a packet was seen; nil: nothing.
func (s *stream) placeOf(p *capture.Packet) *coverage {
	for i := range s.places {
		if x := &s.places[i]; x.netns == p.NetNS && x.ifindex == p.IfIndex && x.kind == p.Kind {
			return x
		}
	}
	return nil
}

// passed tells whether a segment came to the place of a packet before.
func (s *stream) passed(p *capture.Packet, seq uint32, n int) bool {
	c := s.placeOf(p)
	return c != nil && c.has(seq, seq+uint32(n))
}

func (c *coverage) add(s stretch) {
	for i := 0; i < len(c.have); {
		h := c.have[i]
		if after(s.from, h.to) || after(h.from, s.to) {
			i++
			continue
		}
		if after(s.from, h.from) {
			s.from = h.from
		}
		if after(h.to, s.to) {
			s.to = h.to
		}
		if len(c.have) == 1 {
			c.have[0] = s
			return
		}
		c.have = slices.Delete(c.have, i, i+1)
	}
	if len(c.have) >= maxStretches {
		c.have = slices.Delete(c.have, 0, 1)
	}
	c.have = append(c.have, s)
}

// has tells whether all of a stretch came.
func (c *coverage) has(from, to uint32) bool {
	for _, h := range c.have {
		if !after(h.from, from) && !after(to, h.to) {
			return true
		}
	}
	return false
}

// uncover notes that a segment which came into a namespace was dropped there.
func (s *stream) uncover(netns, seq uint32, n int) {
	end := seq + uint32(n)
	for i := range s.places {
		c := &s.places[i]
		if c.netns != netns || c.kind == capture.TX {
			continue
		}
		var left []stretch
		for _, h := range c.have {
			if after(seq, h.from) {
				left = append(left, stretch{h.from, earlier(h.to, seq)})
			}
			if after(h.to, end) {
				left = append(left, stretch{later(h.from, end), h.to})
			}
		}
		c.have = left
	}
}

func earlier(a, b uint32) uint32 {
	if after(a, b) {
		return b
	}
	return a
}

func later(a, b uint32) uint32 {
	if after(a, b) {
		return a
	}
	return b
}

// carries tells whether some place saw a segment: then it is of this stream.
func (s *stream) carries(seq uint32, n int) bool {
	for i := range s.places {
		if s.places[i].has(seq, seq+uint32(n)) {
			return true
		}
	}
	return false
}
