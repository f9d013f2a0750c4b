package assemble

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
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
	if s.of.evicted && a.now.Before(a.arrival(s)) {
		return // what is here is more likely another's
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
	near      [maxRegion]uint64 // of each exchange: the slots in whose time it was sent
	takers    [maxRegion]uint64 // of each exchange: the slots that it fits
	wants     [maxRegion]uint64 // of each slot: the exchanges that fit it
	start     [maxRegion]int64  // when each exchange, or what led to it, was sent
	next      [maxRegion]int    // what each exchange led to; -1: nothing
	unsure    uint64            // exchanges that fit others, were it not for what led to them
	least     [maxRegion + 1][maxRegion + 1]int64
	before    bool  // there are more before
	complete  int64 // no more slots or exchanges before that time are left out
}

// matchRegion gives the exchanges around a slot to the slots that they are of, one to
// one. What must be so is exact. Where two could change places it is inferred: in the
// order in which they were sent.
func (a *Assembler) matchRegion(s *slot) {
	c := s.channel
	before := false // there are more, which are not matched again
	for first := s.first(); first < len(c.slots) && !s.settled; {
		a.solve(c, first, before)
		if slices.Contains(a.region.slots, s) {
			a.region.settle()
			return
		}
		if !a.region.settle() {
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

// collect finds the slots from one on that compete with one another, and what exchanges
// they compete for.
func (r *region) collect(a *Assembler, c *channel, first int, before bool) {
	r.a, r.slots, r.exchanges, r.before, r.complete = a, r.slots[:0], r.exchanges[:0], before, 0
	r.near, r.takers, r.wants, r.unsure = [maxRegion]uint64{}, [maxRegion]uint64{}, [maxRegion]uint64{}, 0
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
			if r.near[j] |= 1 << i; s.agrees(x) {
				r.takers[j] |= 1 << i
				r.wants[i] |= 1 << j
			}
		}
	}
}

// lead finds exchanges that very likely only led to another of their attempt: a slot is
// then matched with the last of them, which began with the first.
func (r *region) lead() {
	for k, y := range r.exchanges {
		r.start[k], r.next[k] = y.position.at, -1
		if y.exchange.Protocol != "tcp" {
			continue
		}
		head := -1
		for j := k - 1; j >= 0; j-- {
			x := r.exchanges[j]
			if r.next[j] < 0 && leadsTo(x, y) && r.near[j]&r.takersOf(k) != 0 && (head < 0 || gap(x, y) < gap(r.exchanges[head], y)) {
				head = j
			}
		}
		if head < 0 {
			continue
		}
		r.start[k], r.next[head] = r.start[head], k
		r.drop(head, r.takers[head])
		if far := r.takers[k] &^ r.near[head]; far != 0 {
			r.drop(k, far)
			r.unsure |= 1 << k
		}
	}
}

// takersOf returns the slots that an exchange fits, or that what it leads to may fit.
func (r *region) takersOf(k int) uint64 {
	if r.exchanges[k].closed() {
		return r.near[k]
	}
	return r.takers[k]
}

// drop makes an exchange fit slots no more.
func (r *region) drop(j int, slots uint64) {
	r.takers[j] &^= slots
	for ; slots != 0; slots &= slots - 1 {
		r.wants[bits.TrailingZeros64(slots)] &^= 1 << j
	}
}

// peel gives each slot for which one exchange is left that one, and each exchange that
// fits one slot alone to it, until nothing is left that must be so.
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
// these slots have nothing else, though it may not be told which has which. It returns
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

// doubt takes back what may be of a slot that has nothing though something fits it, and
// what others would then have.
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

// inOrder gives what is left one to one in the order of time, so that exchanges begin
// soon after their attempts; and what then is left to whom it fits.
func (r *region) inOrder() {
	r.align()
	for j, x := range r.exchanges {
		if x.slot != nil || r.takers[j] == 0 {
			continue
		}
		var best *slot
		for rest := r.takers[j]; rest != 0; rest &= rest - 1 {
			s := r.slots[bits.TrailingZeros64(rest)]
			if s.takes(x) && (best == nil || better(s, best, x)) {
				best = s
			}
		}
		if best != nil {
			best.give(x, false)
		}
	}
}

// better tells whether an exchange is rather of s than of t: of what it goes on with, and
// of that the nearest; else of the later of two attempts of one record that had both
// begun; else of what it fits best.
func better(s, t *slot, x *lookup) bool {
	if more := len(s.got) > 0; more != (len(t.got) > 0) {
		return more
	} else if more {
		return s.gap(x) < t.gap(x)
	}
	if s.record == t.record && s.of == t.of {
		at := x.position.at
		return s.begin > t.begin && s.begin <= at || s.begin < t.begin && t.begin > at
	}
	return s.cost(x) < t.cost(x)
}

// others gives what is left of the exchanges that came while an attempt lasted, and
// ended otherwise: to the attempt that has one before or after it, else to one that has
// none.
func (r *region) others() {
	for j := len(r.exchanges) - 1; j >= 0; j-- {
		x := r.exchanges[j]
		if x.slot != nil {
			continue
		}
		var best, found *slot
		if k := r.next[j]; k >= 0 {
			if s := r.exchanges[k].slot; s != nil && s.takes(x) {
				best = s
			}
		}
		for rest := r.near[j]; rest != 0 && best == nil; rest &= rest - 1 {
			s := r.slots[bits.TrailingZeros64(rest)]
			if s.takes(x) && (len(s.got) > 0 || s.agrees(x)) && (found == nil || better(s, found, x)) {
				found = s
			}
		}
		if best == nil {
			best = found
		}
		if best == nil {
			best = r.nearest(j)
		}
		if best == nil {
			continue
		}
		best.give(x, best.exact && r.sure(best, x) && r.leads(j, best))
	}
}

// leads tells whether an exchange can be of no other attempt than that to whose exchange
// it led.
func (r *region) leads(j int, s *slot) bool {
	x := r.exchanges[j]
	if bits.OnesCount64(r.near[j]) == 1 && r.a.allRecorded(x) {
		return true
	}
	for k, y := range r.exchanges {
		switch {
		case k == j:
		case leadsTo(x, y):
			if y.slot != s {
				return false
			}
		case y.slot == s:
			if !leadsTo(y, x) && !follows(y, x) {
				return false
			}
		}
		if k == j || y.slot == s {
			continue
		}
		for _, z := range s.got {
			if leadsTo(y, z) {
				return false // as well
			}
		}
	}
	return len(s.got) > 0
}

// nearest returns the attempt, of those that have nothing else, in whose time an exchange
// was sent though it ended otherwise; nil if there is none.
func (r *region) nearest(j int) (best *slot) {
	for rest := r.near[j]; rest != 0; rest &= rest - 1 {
		if s := r.slots[bits.TrailingZeros64(rest)]; len(s.got) == 0 && (best == nil || better(s, best, r.exchanges[j])) {
			best = s
		}
	}
	return best
}

// verify takes for inferred what could be of another attempt whose own exchange was not
// seen, or that made several.
func (r *region) verify() {
	if len(r.slots) == 1 {
		return
	}
	for j, x := range r.exchanges {
		s := x.slot
		if s == nil || !s.exact {
			continue
		}
		for rest := r.near[j]; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			other := r.slots[i]
			if other != s && (len(other.got) > 0 || other.agrees(x)) && other.takes(x) {
				s.exact = false
				break
			}
		}
	}
}

// settle keeps the result where many compete, for attempts whose own exchanges have come
// if they were observed; false if there is nothing to keep.
func (r *region) settle() bool {
	if len(r.slots) <= crowd {
		return false
	}
	settled := false
	for _, s := range r.slots {
		if len(s.got) > 0 && !r.a.now.Before(r.a.arrival(s)) {
			s.settle(r.a)
			settled = true
		}
	}
	return settled
}

// arrival returns when the exchanges of an attempt have come.
func (a *Assembler) arrival(s *slot) time.Time {
	if s.at.Outcome == trace.OutcomeOK {
		return time.Unix(0, s.limit).Add(linger)
	}
	return time.Unix(0, s.begin).Add(a.unanswered())
}

// settle keeps what a slot has. It takes no more than what goes with that.
func (s *slot) settle(a *Assembler) {
	if s.settled {
		return
	}
	s.contest(a)
	s.settled = true
	if c := s.channel; c != nil {
		c.slots.remove(s.begin, s)
		c.settled.insert(s.begin, s)
	}
}

// unsettle makes it possible again that a slot is given something else.
func (s *slot) unsettle() {
	if c := s.channel; s.settled && c != nil {
		c.settled.remove(s.begin, s)
		c.slots.insert(s.begin, s)
	}
	s.settled = false
}

// contest remembers, when a slot is settled, that the others could have had what it got,
// and it what they get.
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
