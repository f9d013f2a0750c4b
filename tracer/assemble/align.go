package assemble

import (
	"math"
	"math/bits"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// inOrder matches what is left one to one in order of time, so that exchanges begin soon
// after their attempts; and what is left then with any slot that it fits.
func (r *region) inOrder() {
	r.align()
	r.complement()
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

// better tells whether an exchange is more likely of s than of t: of a slot that already has
// exchanges, and of two such the closest in time; else of the later of two attempts of one
// record that had both begun; else of the one that it fits best.
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

// others matches the remaining exchanges that were sent during an attempt and ended
// differently: with the attempt that has one before or after it, else with one that has none.
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
		for rest := r.candidates[j]; rest != 0 && best == nil; rest &= rest - 1 {
			s := r.slots[bits.TrailingZeros64(rest)]
			if s.takes(x) && (len(s.got) > 0 || s.agrees(x)) && (found == nil || better(s, found, x)) {
				found = s
			}
		}
		if best == nil {
			best = found
		}
		if best == nil {
			best = r.closest(j)
		}
		if best == nil {
			continue
		}
		best.give(x, best.exact && r.sure(best, x) && r.leads(j, best))
	}
}

// leads tells whether an exchange can only be of the attempt to whose exchange it led.
func (r *region) leads(j int, s *slot) bool {
	x := r.exchanges[j]
	if bits.OnesCount64(r.candidates[j]) == 1 && r.a.allRecorded(x) {
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

// closest returns the attempt, of those that have nothing else, in whose time an exchange
// was sent though it ended otherwise; nil if there is none.
func (r *region) closest(j int) (best *slot) {
	for rest := r.candidates[j]; rest != 0; rest &= rest - 1 {
		if s := r.slots[bits.TrailingZeros64(rest)]; len(s.got) == 0 && (best == nil || better(s, best, r.exchanges[j])) {
			best = s
		}
	}
	return best
}

// verify makes inferred what could be of another attempt whose own exchange was not seen, or
// that made several.
func (r *region) verify() {
	if len(r.slots) == 1 {
		return
	}
	for j, x := range r.exchanges {
		s := x.slot
		if s == nil || !s.exact {
			continue
		}
		for rest := r.candidates[j]; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			other := r.slots[i]
			if other != s && (len(other.got) > 0 || other.agrees(x)) && other.takes(x) {
				s.exact = false
				break
			}
		}
	}
}

// cost returns how badly an exchange fits an attempt: the square of the time from the begin
// of the attempt to the query, and of that from the response to the end of the attempt, so
// that many small times are better than one large.
func (s *slot) cost(x *lookup) int64 { return s.costFrom(x, x.position.at) }

// costFrom is that of an exchange to which another led that was sent at start.
func (s *slot) costFrom(x *lookup, start int64) int64 {
	cost := square(start - s.begin)
	if s.at.Outcome == trace.OutcomeOK && x.answered != math.MaxInt64 && !x.exchange.Truncated {
		cost += square(s.limit - x.answered)
	}
	return cost
}

// square returns the square of a time, in µs². A negative one shows clocks that disagree, and
// counts for more.
func square(d int64) int64 {
	us := d / 1000
	if d < 0 {
		us *= 10
	}
	return us * us
}

// unmatchedCost is the cost of an attempt without an exchange: more than all others of a
// region together, which last 8 s at most. misfitCost is that of an exchange that does not
// fit.
const (
	unmatchedCost = int64(1e16)
	misfitCost    = int64(1e18)
)

// align matches exchanges with the slots that have none, in order of time of both: as many
// as possible, at the least cost.
func (r *region) align() {
	var slots, exchanges [maxRegion]uint8
	n, m := 0, 0
	for i, s := range r.slots {
		if len(s.got) == 0 && r.wants[i] != 0 {
			slots[n] = uint8(i)
			n++
		}
	}
	for j, x := range r.exchanges {
		if x.slot == nil && r.takers[j] != 0 {
			exchanges[m] = uint8(j)
			m++
		}
	}
	// least[i][j] is the cost of the first i slots with the first j exchanges.
	least := &r.least
	clear(least[0][:m+1])
	for i := 1; i <= n; i++ {
		least[i][0] = least[i-1][0] + unmatchedCost
		for j := 1; j <= m; j++ {
			least[i][j] = min(least[i-1][j]+unmatchedCost, least[i][j-1], least[i-1][j-1]+r.pairCost(slots[i-1], exchanges[j-1]))
		}
	}
	for i, j := n, m; i > 0 && j > 0; {
		switch least[i][j] {
		case least[i][j-1]:
			j--
		case least[i-1][j] + unmatchedCost:
			i--
		default:
			i, j = i-1, j-1
			r.slots[slots[i]].give(r.exchanges[exchanges[j]], false)
		}
	}
}

// complement gives each empty slot what others can spare. Where threads wait for a processor,
// attempts are neither sent nor over in the order of their begin, and a complete match need
// not be in order.
func (r *region) complement() {
	for i, s := range r.slots {
		if tried := uint64(0); len(s.got) == 0 && r.wants[i] != 0 {
			r.augment(i, &tried)
		}
	}
}

// augment gives a slot an exchange that nobody has, or else one whose slot can be given
// another likewise: an augmenting path of the bipartite matching. It returns false if there
// is none among the exchanges not tried yet.
func (r *region) augment(i int, tried *uint64) bool {
	for rest := r.wants[i] &^ *tried; rest != 0; rest = r.wants[i] &^ *tried {
		j := bits.TrailingZeros64(rest)
		*tried |= 1 << j
		x := r.exchanges[j]
		if has := x.slot; has != nil {
			if has.exact || len(has.got) != 1 || !r.augment(slices.Index(r.slots, has), tried) {
				continue
			}
			x.lose()
		}
		r.slots[i].give(x, false)
		return true
	}
	return false
}

// pairCost returns the cost of an exchange for a slot.
func (r *region) pairCost(i, j uint8) int64 {
	if r.takers[j]&(1<<i) == 0 {
		return misfitCost
	}
	return r.slots[i].costFrom(r.exchanges[j], r.start[j])
}
