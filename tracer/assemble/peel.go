package assemble

import (
	"math/bits"
	"slices"
)

// peel matches each slot with the only exchange that is left for it, and each exchange with
// the only slot that it fits, until there is no such match left.
func (r *region) peel() {
	takers := r.takers
	for again := true; again; {
		again = false
		for i, s := range r.slots {
			if len(s.got) > 0 || s.limit+slack > r.complete {
				continue
			}
			left := r.left(&takers, i)
			if bits.OnesCount64(left) == 1 && !r.disputed(&takers, i, left) {
				again = true
				r.give(s, bits.TrailingZeros64(left))
				r.occupy(&takers, i, s)
			}
		}
		for j, x := range r.exchanges {
			if x.slot != nil || bits.OnesCount64(takers[j]) != 1 || x.position.at > r.complete || !r.a.allRecorded(x) {
				continue
			}
			i := bits.TrailingZeros64(takers[j])
			s := r.slots[i]
			if again = true; !s.takes(x) {
				takers[j] = 0 // one of two
				if y := s.got[0]; len(s.got) == 1 && s.cost(x) < s.cost(y) {
					s.reset()
					s.give(x, false)
				}
				s.exact = false
				continue
			}
			r.give(s, j)
			r.occupy(&takers, i, s)
		}
		again = again || r.tight(&takers)
	}
	r.doubt()
}

// tight finds exchanges, in order of time, that together fit no more slots than they are:
// these slots have nothing else, though which has which may be ambiguous. It returns
// whether that leaves less for others.
func (r *region) tight(takers *[maxRegion]uint64) bool {
	const most = 8 // slots
	for first := range r.exchanges {
		union, group, n := uint64(0), uint64(0), 0
		for j := first; j < len(r.exchanges) && bits.OnesCount64(union) <= most; j++ {
			x := r.exchanges[j]
			if x.slot != nil || takers[j] == 0 {
				continue
			}
			if x.position.at > r.complete || !r.a.allRecorded(x) {
				break
			}
			if union, group, n = union|takers[j], group|1<<j, n+1; n < 2 || n < bits.OnesCount64(union) {
				continue
			}
			if r.keep(takers, group, union) {
				return true
			}
			break
		}
	}
	return false
}

// keep keeps slots for a group of exchanges; false if no other fits them.
func (r *region) keep(takers *[maxRegion]uint64, group, slots uint64) bool {
	first, last := r.exchanges[bits.TrailingZeros64(group)].position.at, r.exchanges[bits.Len64(group)-1].position.at
	for rest := slots; rest != 0; rest &= rest - 1 {
		s := r.slots[bits.TrailingZeros64(rest)]
		s.from, s.until = first, last
	}
	kept := false
	for k := range r.exchanges {
		if group&(1<<k) == 0 && takers[k]&slots != 0 {
			takers[k] &^= slots
			r.drop(k, r.takers[k]&slots)
			kept = true
		}
	}
	return kept
}

// allRecorded tells whether the records of all lookups have come that an exchange could
// be of.
func (a *Assembler) allRecorded(x *lookup) bool {
	return a.now.UnixNano() >= x.position.at+int64(holdServer)
}

// doubt revokes matches that may be of an empty slot that they fit, and those that others
// would have instead.
func (r *region) doubt() {
	open := uint64(0) // exchanges that may be of another than has them
	for i, s := range r.slots {
		if len(s.got) == 0 {
			open |= r.wants[i]
		}
	}
	for again := open != 0; again; {
		again = false
		for j, x := range r.exchanges {
			if open&(1<<j) == 0 || x.slot == nil {
				continue
			}
			s := x.slot
			open |= r.wants[slices.Index(r.slots, s)]
			s.reset()
			again = true
		}
	}
}

// give gives what must be so.
func (r *region) give(s *slot, j int) {
	x := r.exchanges[j]
	s.give(x, r.unsure&(1<<j) == 0 && r.sure(s, x))
}

// sure tells whether an exchange that fits a slot can be of nothing outside the region: of
// an attempt that is over, or one of a lookup that has no record.
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

// disputed tells whether the only exchange that is left for a slot is also the only one left
// for another: it cannot be of both.
func (r *region) disputed(takers *[maxRegion]uint64, i int, left uint64) bool {
	for rest := takers[bits.TrailingZeros64(left)] &^ (1 << i); rest != 0; rest &= rest - 1 {
		if other := bits.TrailingZeros64(rest); len(r.slots[other].got) == 0 && r.left(takers, other) == left {
			return true
		}
	}
	return false
}

// sequence matches the remaining attempts of one record, which were sequential, with as many
// exchanges: clocks that disagree do not change their order.
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
	var exchanges []int
	for j, x := range r.exchanges {
		if x.slot == nil && r.takers[j] != 0 {
			exchanges = append(exchanges, j)
		}
	}
	if len(slots) == 0 || len(slots) != len(exchanges) {
		return
	}
	for i, s := range slots {
		if x := r.exchanges[exchanges[i]]; !s.agrees(x) || !r.a.feasible(s, x) || x.position.at > r.complete {
			return
		}
	}
	for i, s := range slots {
		r.give(s, exchanges[i])
	}
}
