package assemble

import (
	"math"

	"github.com/dnstrace/dnstrace/trace"
)

// cost tells how badly an exchange fits an attempt: it grows with the square of the time
// from when the attempt began to when it was sent, and of that from its response to when
// the attempt was over, so that many small times are better than one large.
func (s *slot) cost(x *lookup) int64 { return s.costFrom(x, x.position.at) }

// costFrom is that of an exchange to which another led that was sent at start.
func (s *slot) costFrom(x *lookup, start int64) int64 {
	cost := square(start - s.begin)
	if s.at.Outcome == trace.OutcomeOK && x.answered != math.MaxInt64 && !x.exchange.Truncated {
		cost += square(s.limit - x.answered)
	}
	return cost
}

// square returns the square of a time, in µs². One that is negative can only come of
// clocks that disagree, and counts for more.
func square(d int64) int64 {
	us := d / 1000
	if d < 0 {
		us *= 10
	}
	return us * us
}

// unmatchedCost is of an attempt that is left without an exchange: more than all others
// of a region together, which last 8 s at most. misfitCost is of one that does not fit.
const (
	unmatchedCost = int64(1e16)
	misfitCost    = int64(1e18)
)

// align gives exchanges to the slots that have none, in the order of time of both: as
// many as possible, and of that the best.
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

// pairCost returns the cost of an exchange for a slot.
func (r *region) pairCost(i, j uint8) int64 {
	if r.takers[j]&(1<<i) == 0 {
		return misfitCost
	}
	return r.slots[i].costFrom(r.exchanges[j], r.start[j])
}
