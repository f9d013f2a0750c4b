package assemble

import (
	"cmp"
	"math/bits"
	"slices"
)

// region is the slots of a channel that compete for exchanges with one another, and
// those exchanges, both in order of time.
type region struct {
	a          *Assembler
	slots      []*slot
	exchanges  []*lookup
	candidates [maxRegion]uint64 // of each exchange: the slots in whose time it was sent, give or take slack
	takers     [maxRegion]uint64 // of each exchange: the slots that it fits
	wants      [maxRegion]uint64 // of each slot: the exchanges that fit it
	start      [maxRegion]int64  // when each exchange, or what led to it, was sent
	next       [maxRegion]int    // what each exchange led to; -1: nothing
	unsure     uint64            // exchanges that fit others, were it not for what led to them
	least      [maxRegion + 1][maxRegion + 1]int64
	before     bool  // there are more before
	complete   int64 // no more slots or exchanges before that time are left out
}

// collect finds the slots from one on that compete with one another, and what exchanges
// they compete for.
func (r *region) collect(a *Assembler, c *channel, first int, before bool) {
	r.a, r.slots, r.exchanges, r.before, r.complete = a, r.slots[:0], r.exchanges[:0], before, 0
	r.candidates, r.takers, r.wants, r.unsure = [maxRegion]uint64{}, [maxRegion]uint64{}, [maxRegion]uint64{}, 0
	if first >= len(c.slots) {
		return
	}
	from, until := c.slots[first].at-slack, c.slots[first].at
	for i := first; i < len(c.slots) && c.slots[i].at <= until+2*slack; i++ {
		if len(r.slots) == maxRegion {
			until = min(until, c.slots[i].at-2*slack)
			break
		}
		other := c.slots[i].item
		r.slots = append(r.slots, other)
		until = max(until, other.limit+slack)
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
	if x.begin != y.begin {
		return cmp.Compare(x.begin, y.begin)
	}
	return cmp.Or(slices.Compare(x.of.flow[:], y.of.flow[:]), cmp.Compare(x.at.Attempt, y.at.Attempt))
}

func compareExchanges(x, y *lookup) int {
	if x.position.at != y.position.at {
		return cmp.Compare(x.position.at, y.position.at)
	}
	return slices.Compare(x.flow[:], y.flow[:])
}

// compare finds which exchanges fit which slots.
func (r *region) compare() {
	for i, s := range r.slots {
		first, _ := slices.BinarySearchFunc(r.exchanges, s.begin-slack, func(x *lookup, at int64) int { return cmp.Compare(x.position.at, at) })
		for j := first; j < len(r.exchanges) && r.exchanges[j].position.at <= s.limit+slack; j++ {
			x := r.exchanges[j]
			if !r.a.feasible(s, x) {
				continue
			}
			if r.candidates[j] |= 1 << i; s.agrees(x) {
				r.takers[j] |= 1 << i
				r.wants[i] |= 1 << j
			}
		}
	}
}

// lead finds chains of exchanges of one attempt, of which each very likely led to the next: a
// slot is then matched with the last of them, from the time of the first.
func (r *region) lead() {
	for k, y := range r.exchanges {
		r.start[k], r.next[k] = y.position.at, -1
		if y.exchange.Protocol != "tcp" {
			continue
		}
		head := -1
		for j := k - 1; j >= 0; j-- {
			x := r.exchanges[j]
			if r.next[j] < 0 && leadsTo(x, y) && r.candidates[j]&r.takersOf(k) != 0 && (head < 0 || gap(x, y) < gap(r.exchanges[head], y)) {
				head = j
			}
		}
		if head < 0 {
			continue
		}
		if own, none := r.ownAttempt(head, k); own {
			r.drop(k, none)
			r.candidates[k] &^= none
			continue
		}
		r.start[k], r.next[head] = r.start[head], k
		r.drop(head, r.takers[head])
		if outside := r.takers[k] &^ r.during(head); outside != 0 {
			r.drop(k, outside)
			r.unsure |= 1 << k
		}
	}
}

// during returns the slots during which an exchange was sent, give or take drift; its
// candidates where there are none.
func (r *region) during(j int) (slots uint64) {
	for rest := r.candidates[j]; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(rest); r.slots[i].lasts(r.exchanges[j]) {
			slots |= 1 << i
		}
	}
	return cmp.Or(slots, r.candidates[j])
}

// ownAttempt tells whether an exchange that another may have led to has an attempt of its
// own. none are the slots that it is not of. A client that got a truncated answer asks over
// TCP at once, and its server has another attempt: one that nothing else fits, or one whose
// record is yet to come, as those of the other were over. An attempt is over when its server
// has written the answer, which its client may have by then.
func (r *region) ownAttempt(head, k int) (own bool, none uint64) {
	y, before := r.exchanges[k], r.takersOf(head)
	for rest := r.takers[k] &^ before; rest != 0; rest &= rest - 1 {
		if r.wants[bits.TrailingZeros64(rest)] == 1<<k {
			r.unsure |= 1 << k
			return true, before & r.candidates[k]
		}
	}
	for i, s := range r.slots {
		switch {
		case r.candidates[head]&r.candidates[k]&(1<<i) == 0:
		case !s.lasts(y):
			none |= 1 << i
		case s.lasts(r.exchanges[head]):
			return false, 0
		}
	}
	return true, none
}

// takersOf returns the slots that an exchange fits, or that what it leads to may fit.
func (r *region) takersOf(k int) uint64 {
	if r.exchanges[k].closed() {
		return r.candidates[k]
	}
	return r.takers[k]
}

// drop removes slots from those that an exchange fits.
func (r *region) drop(j int, slots uint64) {
	r.takers[j] &^= slots
	for ; slots != 0; slots &= slots - 1 {
		r.wants[bits.TrailingZeros64(slots)] &^= 1 << j
	}
}
