package exchange

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// data takes the bytes of a segment.
func (t *Table) data(c *conn, s *stream, p *capture.Packet, seq uint32, fromClient bool) {
	n := p.PayloadLen
	// A dropped segment reaches nobody, but says what it carried all the same. What is
	// read has come by before, and is not repeated.
	var done []message16
	if p.Kind != capture.Read {
		var ok bool
		if done, ok = s.add(segment{seq, p.Payload, n, p.Time}); !ok {
			t.stats.Unreadable++
		}
	}
	fresh := sent(p, t.buffers.in(p))
	again := fresh && !fromClient && s.passed(p, seq, n)
	var here *coverage
	if p.Kind != capture.Drop {
		here = s.cover(p, seq, n)
	} else if !duplicate(p.Reason) {
		s.uncover(p.NetNS, seq, n)
		s.drops(p, seq, n)
	}
	for i := range done {
		t.complete(c, s, p, &done[i], fromClient)
	}
	for i := range s.recent {
		m := &s.recent[i]
		if m.ex.closed || !m.in(seq, n) {
			continue
		}
		if again {
			m.ex.resent++
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
	m := message{body: m16.body, size: m16.size, held: t.buffers.within(p, waitsForCPU)}
	known := carried{start: m16.start, end: m16.end, size: m16.size}
	h, err := parseHeader(m.body, nil)
	m.header = h
	switch {
	case err == nil && fromClient && !h.response():
		known.ex = t.query(p, &m, c.client, c.server)
		if known.ex != nil {
			t.beginsOn(known.ex, c, m16.since)
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
func (t *Table) beginsOn(ex *open, c *conn, since int64) {
	if ex.conn != nil {
		return // known by another of its connection's addresses
	}
	ex.conn = c
	if since < ex.first {
		ex.first, ex.wall = since, t.cfg.Wall(since)
		t.age.backdate(ex)
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
			t.keepDrop(m.ex, t.dropOf(m.ex, &e.packet, response))
		}
		return !after(e.to, m.end)
	})
}

// answerOf finds the exchange of a response with a question.
func (t *Table) answerOf(c *conn, p *capture.Packet, m *message, known *carried) {
	s := t.at(keyOf(p, &m.header, c.client, nil))
	for i := range s.len() {
		ex := s.at(i)
		switch better := known.ex; {
		case ex.conn != c && !ex.goesTo(p.Src):
		case better == nil, better.conn != c && ex.conn == c, (better.conn == c) == (ex.conn == c) && better.answer != nil && ex.answer == nil:
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
	known.why, known.rcode = a.rejection, int(a.rcode)
	if a.rejection == accepted {
		known.ex.take(&a, m)
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
	if m.counted || !whole || !m.ex.atClient(p) {
		return
	}
	m.counted = true
	m.ex.last = max(m.ex.last, p.Time)
	r := trace.Rejection{Why: rejections[m.why], Src: p.Src, Size: m.size, Offset: trace.Seconds(p.Time - m.ex.first)}
	if m.why != malformed {
		r.RCode = trace.RCodeName(m.rcode)
	}
	t.rejected(m.ex, r)
}
