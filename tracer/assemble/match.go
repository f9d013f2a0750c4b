package assemble

import (
	"cmp"
	"math/bits"
	"slices"
)

const (
	// maxRegion bounds the slots, and the exchanges, that are matched at once.
	maxRegion = 64
	// crowd is how many slots are not matched again each time that one of them is
	// looked at.
	crowd = 16
	// maxPassed bounds the slots that are looked at to find those.
	maxPassed = 256
)

// match finds the exchanges of l's attempts.
func (a *Assembler) match(l *lookup) {
	for _, s := range l.slots {
		a.matchSlot(s)
	}
}

func (a *Assembler) matchSlot(s *slot) {
	if s.settled {
		return
	}
	if !s.span.IsZero() && a.matchStamp(s) {
		return
	}
	if s.channel != nil && len(s.channel.exchanges) > 0 {
		a.matchRegion(s)
	}
}

// matchStamp gives a slot the exchanges that carry its span id: that is proof, whatever
// else could be.
func (a *Assembler) matchStamp(s *slot) bool {
	found := false
	for _, x := range a.stamped[s.span] {
		if !a.servers.sent(&s.of.server, &x.sender) || x == s.of {
			continue
		}
		if !found {
			s.reset()
			found = true
		}
		if x.slot != s {
			x.lose()
			s.give(x, true)
		}
	}
	return found
}

// region is the slots of a channel that compete for exchanges with one another, and
// those exchanges, both in order of time.
type region struct {
	a         *Assembler
	slots     []*slot
	exchanges []*lookup
	takers    [maxRegion]uint64 // of each exchange: the slots that it fits
	wants     [maxRegion]uint64 // of each slot: the exchanges that fit it
	before    bool              // there are more before
	complete  int64             // no more slots or exchanges before that time are left out
}

// matchRegion gives the exchanges around a slot to the slots that they are of, one to
// one. What must be so is exact. Where two could change places it is inferred: in the
// order in which they were sent.
func (a *Assembler) matchRegion(s *slot) {
	const most = 8 // regions, of those before the slot's own
	for range most {
		first, before := s.first()
		if len(s.channel.slots) == 0 || a.solve(s.channel, first, before, s) || s.settled {
			return
		}
	}
	a.solve(s.channel, s.channel.slots.from(s.begin), true, s)
}

// first returns the index of the first slot in the channel with which s competes, by way
// of others; before tells whether there may be more.
func (s *slot) first() (index int, before bool) {
	c := s.channel
	self := c.slots.from(s.begin)
	index = self
	from := s.begin - slack
	for i := self - 1; i >= 0 && c.slots[i].at >= from-c.longest-slack; i-- {
		if i < self-maxPassed {
			return index, true
		}
		if other := c.slots[i].item; !other.settled && other.limit+slack >= from {
			index, from = i, min(from, other.begin-slack)
		}
	}
	return index, false
}

// solve matches a region of a channel that begins with a slot. It returns whether that
// of s is among them, or nothing came of it.
func (a *Assembler) solve(c *channel, first int, before bool, s *slot) bool {
	r := &a.region
	r.collect(a, c, first, before)
	for _, other := range r.slots {
		other.reset()
	}
	r.compare()
	r.peel()
	r.sequence()
	r.inOrder()
	r.others()
	return !r.settle() || slices.Contains(r.slots, s)
}

// collect finds the slots from one on that compete with one another, and what exchanges
// they compete for.
func (r *region) collect(a *Assembler, c *channel, first int, before bool) {
	*r = region{a: a, slots: r.slots[:0], exchanges: r.exchanges[:0], before: before}
	if first >= len(c.slots) {
		return
	}
	from, until := c.slots[first].at-slack, c.slots[first].at
	for i := first; i < len(c.slots) && c.slots[i].at <= until+2*slack; i++ {
		if len(r.slots) == maxRegion {
			until = min(until, c.slots[i].at-2*slack)
			break
		}
		if other := c.slots[i].item; !other.settled {
			r.slots = append(r.slots, other)
			until = max(until, other.limit+slack)
		}
	}
	slices.SortStableFunc(r.slots, compareSlots)
	r.complete = until
	for i := c.exchanges.from(from); i < len(c.exchanges) && c.exchanges[i].at <= until; i++ {
		x := c.exchanges[i].item
		switch {
		case x.slot != nil && !slices.Contains(r.slots, x.slot), !r.sentBySome(x):
		case len(r.exchanges) == maxRegion:
			r.complete = min(until, c.exchanges[i].at-1)
			slices.SortStableFunc(r.exchanges, compareExchanges)
			return
		default:
			r.exchanges = append(r.exchanges, x)
		}
	}
	slices.SortStableFunc(r.exchanges, compareExchanges)
}

// sentBySome tells whether a server that one of the slots is of may have sent an exchange.
func (r *region) sentBySome(x *lookup) bool {
	for _, s := range r.slots {
		if r.a.servers.sent(&s.of.server, &x.sender) {
			return true
		}
	}
	return false
}

// compareSlots orders slots by time, and equal ones by what they are of, so that the
// order in which records come makes no difference.
func compareSlots(x, y *slot) int {
	return cmp.Or(cmp.Compare(x.begin, y.begin), slices.Compare(x.of.flow[:], y.of.flow[:]), cmp.Compare(x.at.Attempt, y.at.Attempt))
}

func compareExchanges(x, y *lookup) int {
	return cmp.Or(cmp.Compare(x.position.at, y.position.at), slices.Compare(x.flow[:], y.flow[:]))
}

// compare finds which exchanges fit which slots.
func (r *region) compare() {
	for i, s := range r.slots {
		first, _ := slices.BinarySearchFunc(r.exchanges, s.begin-slack, func(x *lookup, at int64) int { return cmp.Compare(x.position.at, at) })
		for j := first; j < len(r.exchanges) && r.exchanges[j].position.at <= s.limit+slack; j++ {
			if x := r.exchanges[j]; s.agrees(x) && r.a.feasible(s, x) {
				r.takers[j] |= 1 << i
				r.wants[i] |= 1 << j
			}
		}
	}
}

// peel gives each exchange that fits one slot alone to it, and each slot for which one
// exchange is left that one, until nothing is left that must be so.
func (r *region) peel() {
	takers := r.takers
	var given []*slot
	sure := -1 // how many of given are so even if another slot's exchange was not seen
	for again := true; again; {
		again = false
		for j, x := range r.exchanges {
			if x.slot != nil || bits.OnesCount64(takers[j]) != 1 || x.position.at > r.complete {
				continue
			}
			i := bits.TrailingZeros64(takers[j])
			s := r.slots[i]
			if again = true; !s.takes(x) {
				s.exact, takers[j] = false, 0 // one of two
				continue
			}
			given = append(given, s)
			r.give(s, x)
			r.occupy(&takers, i, s)
		}
		for i, s := range r.slots {
			if len(s.got) > 0 || s.limit+slack > r.complete {
				continue
			}
			if left := r.left(&takers, i); bits.OnesCount64(left) == 1 && !r.disputed(&takers, i, left) {
				if sure < 0 {
					sure = len(given)
				}
				given, again = append(given, s), true
				r.give(s, r.exchanges[bits.TrailingZeros64(left)])
				r.occupy(&takers, i, s)
			}
		}
	}
	if sure >= 0 && r.unmatched() {
		for _, s := range given[sure:] {
			s.exact = false
		}
	}
}

// give gives what must be so.
func (r *region) give(s *slot, x *lookup) {
	s.give(x, r.sure(s, x))
}

// sure tells whether an exchange that fits a slot can be of nothing that is not seen
// here: an attempt that is over, or one of a lookup that has no record.
func (r *region) sure(s *slot, x *lookup) bool {
	if r.before || s.contested || x.contested {
		return false
	}
	caller, _ := r.a.caller(x)
	return caller == nil || caller == s.of
}

// occupy makes a slot that has its exchange fit no other that cannot be of it too.
func (r *region) occupy(takers *[maxRegion]uint64, i int, s *slot) {
	for j, x := range r.exchanges {
		if takers[j]&(1<<i) != 0 && x.slot == nil && !s.takes(x) {
			if takers[j]&^(1<<i) != 0 {
				takers[j] &^= 1 << i
			}
		}
	}
}

// left returns the exchanges that are left for a slot.
func (r *region) left(takers *[maxRegion]uint64, i int) uint64 {
	left := uint64(0)
	for rest := r.wants[i]; rest != 0; rest &= rest - 1 {
		if j := bits.TrailingZeros64(rest); r.exchanges[j].slot == nil && takers[j]&(1<<i) != 0 {
			left |= 1 << j
		}
	}
	return left
}

// disputed tells whether the one exchange that is left for a slot is also all that is
// left for another: it cannot be of both.
func (r *region) disputed(takers *[maxRegion]uint64, i int, left uint64) bool {
	for rest := takers[bits.TrailingZeros64(left)] &^ (1 << i); rest != 0; rest &= rest - 1 {
		if other := bits.TrailingZeros64(rest); len(r.slots[other].got) == 0 && r.left(takers, other) == left {
			return true
		}
	}
	return false
}

// unmatched tells whether a slot has nothing though something fits it: that may be what
// another was given.
func (r *region) unmatched() bool {
	for i, s := range r.slots {
		if len(s.got) == 0 && r.wants[i] != 0 {
			return true
		}
	}
	return false
}

// sequence matches what is left of one record, whose attempts came one after the other,
// with as many exchanges: clocks that disagree do not change their order.
func (r *region) sequence() {
	var slots []*slot
	for i, s := range r.slots {
		if len(s.got) > 0 || r.wants[i] == 0 {
			continue
		}
		if n := len(slots); n > 0 && (slots[n-1].record != s.record || slots[n-1].of != s.of || slots[n-1].limit > s.begin+slack) {
			return
		}
		slots = append(slots, s)
	}
	var exchanges []*lookup
	for j, x := range r.exchanges {
		if x.slot == nil && r.takers[j] != 0 {
			exchanges = append(exchanges, x)
		}
	}
	if len(slots) == 0 || len(slots) != len(exchanges) {
		return
	}
	for i, s := range slots {
		if x := exchanges[i]; !s.agrees(x) || !r.a.feasible(s, x) || x.position.at > r.complete {
			return
		}
	}
	for i, s := range slots {
		r.give(s, exchanges[i])
	}
}

// inOrder gives what is left in the order of time: each exchange to the attempt, of
// those that it fits, that is over first.
func (r *region) inOrder() {
	for j, x := range r.exchanges {
		if x.slot != nil || r.takers[j] == 0 {
			continue
		}
		var best *slot
		for rest := r.takers[j]; rest != 0; rest &= rest - 1 {
			s := r.slots[bits.TrailingZeros64(rest)]
			more := len(s.got) > 0
			if more && !(s.takes(x) && follows(s.got[len(s.got)-1], x)) {
				continue
			}
			if best == nil || better(s, best, x) {
				best = s
			}
		}
		if best != nil {
			best.give(x, false)
		}
	}
}

// better tells whether an exchange is rather of s than of t: of the later of two
// attempts of one record that had both begun, else of what it goes on with, else of
// what is over first.
func better(s, t *slot, x *lookup) bool {
	if s.record == t.record && s.of == t.of {
		at := x.position.at
		return s.begin > t.begin && s.begin <= at || s.begin < t.begin && t.begin > at
	}
	if more := len(s.got) > 0; more != (len(t.got) > 0) {
		return more
	}
	return s.limit < t.limit
}

// others gives what is left of the exchanges that came while an attempt lasted, and
// ended otherwise: to the attempt that has one before or after it, else to the nearest
// that has none.
func (r *region) others() {
	for _, x := range r.exchanges {
		if x.slot != nil {
			continue
		}
		var best *slot
		fit := 0
		for _, s := range r.slots {
			if !s.takes(x) || !r.a.feasible(s, x) {
				continue
			}
			fit++
			if best == nil || better(s, best, x) {
				best = s
			}
		}
		if best == nil {
			continue
		}
		with := len(best.got) > 0
		best.give(x, with && best.exact && fit == 1 && r.sure(best, x))
	}
}

// settle keeps the result where many compete; false if there is nothing to keep.
func (r *region) settle() bool {
	if len(r.slots) <= crowd {
		return false
	}
	settled := false
	for _, s := range r.slots {
		s.settled = len(s.got) > 0
		settled = settled || s.settled
	}
	return settled
}

// contest remembers, when one of those that compete is over, that the others could have
// had what it got.
func (s *slot) contest(a *Assembler) {
	if s.exact || s.channel == nil {
		return
	}
	r := &a.region
	first, before := s.first()
	r.collect(a, s.channel, first, before)
	for _, other := range r.slots {
		other.contested = other.contested || !other.exact
	}
	for _, x := range r.exchanges {
		x.contested = x.contested || x.slot == nil || !x.slot.exact
	}
}
