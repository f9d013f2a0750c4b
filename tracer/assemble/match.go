package assemble

import (
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

const (
	// maxRegion bounds the slots, and the exchanges, that are matched at once.
	maxRegion = 64
	// crowd is the number of slots above which a result is kept, and not matched again
	// each time that one of them is looked at.
	crowd = 16
	// maxPassed bounds the slots that are looked at to find those.
	maxPassed = 256
)

// match finds the exchanges of l's attempts.
func (a *Assembler) match(l *lookup) {
	if l.refresh != nil && !l.server.placed {
		l.server = a.serverOf(l) // the query that set it off may have come since
	}
	for _, s := range l.slots {
		a.matchSlot(s)
	}
}

func (a *Assembler) matchSlot(s *slot) {
	switch {
	case !s.span.IsZero() && a.matchStamp(s), s.final:
	case s.of.evicted && a.now.Before(a.arrival(s)):
		// What is here is more likely another's.
	case s.channel != nil && len(s.channel.exchanges) > 0:
		a.matchRegion(s)
	}
}

// matchStamp gives a slot the exchanges that carry its span id: that is proof, whatever
// else could be.
func (a *Assembler) matchStamp(s *slot) (found bool) {
	for _, x := range a.stamped[s.span] {
		if !a.servers.sent(&s.of.server, &x.sender) || x == s.of {
			continue
		}
		if found = true; x.slot == s && s.exact {
			continue
		}
		if len(s.got) > 0 && s.got[0].stamp.SpanID != s.span {
			s.reset()
		}
		x.lose()
		s.give(x, true)
	}
	if found {
		s.finalize(a)
	}
	return found
}

// matchRegion gives the exchanges around a slot to the slots that they are of, one to
// one. A match without alternative is exact. Where two could change places it is inferred,
// from the order in which they were sent.
func (a *Assembler) matchRegion(s *slot) {
	c := s.channel
	before := false // there are more, which are not matched again
	for first := s.first(); first < len(c.slots) && !s.final; {
		a.solve(c, first, before)
		if slices.Contains(a.region.slots, s) {
			a.region.finalize()
			return
		}
		if !a.region.finalize() {
			first += max(1, len(a.region.slots))
			before = true
		}
	}
}

// first returns the index of the first slot in the channel with which s competes, by way
// of others.
func (s *slot) first() int {
	c := s.channel
	self := c.slots.from(s.begin)
	index, from := self, s.begin-slack
	for i := self - 1; i >= 0 && c.slots[i].at >= from-c.longest-slack; i-- {
		if other := c.slots[i].item; other.limit+slack >= from {
			index, from = i, min(from, other.begin-slack)
		}
	}
	return index
}

// solve matches the region of a channel that begins with a slot.
func (a *Assembler) solve(c *channel, first int, before bool) {
	r := &a.region
	r.collect(a, c, first, before)
	for _, other := range r.slots {
		other.reset()
		other.from, other.until = other.begin-slack, other.limit+slack
	}
	r.compare()
	r.lead()
	r.peel()
	r.sequence()
	r.inOrder()
	r.others()
	r.verify()
}

// finalize keeps the result where many compete, for attempts whose own exchanges have come
// if they were observed; false if there is nothing to keep.
func (r *region) finalize() bool {
	if len(r.slots) <= crowd {
		return false
	}
	finalized := false
	for _, s := range r.slots {
		if len(s.got) > 0 && !r.a.now.Before(r.a.arrival(s)) {
			s.finalize(r.a)
			finalized = true
		}
	}
	return finalized
}

// arrival returns when the exchanges of an attempt have come.
func (a *Assembler) arrival(s *slot) time.Time {
	if s.at.Outcome == trace.OutcomeOK {
		return time.Unix(0, s.limit).Add(linger)
	}
	return time.Unix(0, s.begin).Add(a.unanswered())
}

// finalize keeps what a slot has. From then on it takes only exchanges of the same attempt.
func (s *slot) finalize(a *Assembler) {
	if s.final {
		return
	}
	s.contest(a)
	s.final = true
	if c := s.channel; c != nil {
		c.slots.remove(s.begin, s)
		c.final.insert(s.begin, s)
	}
}

// reopen undoes finalize: the slot may be given something else.
func (s *slot) reopen() {
	if c := s.channel; s.final && c != nil {
		c.final.remove(s.begin, s)
		c.slots.insert(s.begin, s)
	}
	s.final = false
}

// contest marks, when a slot is final, that others could have had what it got, and that it
// could have had what they get.
func (s *slot) contest(a *Assembler) {
	c := s.channel
	if c == nil || s.exact && s.single() {
		return
	}
	for i := c.exchanges.from(s.from); i < len(c.exchanges) && c.exchanges[i].at <= s.until; i++ {
		x := c.exchanges[i].item
		if x.slot == s || x.contested || !a.feasible(s, x) {
			continue
		}
		x.contested = !s.exact && s.agrees(x) || s.takes(x)
	}
	if s.exact {
		return
	}
	for i := c.slots.from(s.from - c.longest); i < len(c.slots) && c.slots[i].at <= s.until+slack; i++ {
		if other := c.slots[i].item; !other.exact {
			other.contested = true
		}
	}
}

// single tells whether the attempt has one exchange, and none can be of it beside that.
func (s *slot) single() bool {
	return len(s.got) == 1 && s.got[0].exchange.Protocol == "udp" && !s.got[0].exchange.Truncated
}
