package assemble

import (
	"math"

	"github.com/dnstrace/dnstrace/trace"
)

// cost tells how badly an exchange fits an attempt: it grows with the square of the time
// from when the attempt began to when it was sent, and of that from its response to when
// the attempt was over, so that many small times are better than one large.
func (s *slot) cost(x *lookup) float64 { return s.costFrom(x, x.position.at) }

// costFrom is that of an exchange to which another led that was sent at start.
func (s *slot) costFrom(x *lookup, start int64) float64 {
	cost := square(start - s.begin)
	if s.at.Outcome == trace.OutcomeOK && x.answered != math.MaxInt64 && !x.exchange.Truncated {
		cost += square(s.limit - x.answered)
	}
	return cost
}

// square returns the square of a time; one that is negative can only come of clocks that
// disagree, and counts for more.
func square(d int64) float64 {
	x := float64(d)
	if x < 0 {
		x *= 10
	}
	return x * x
}

// unmatchedCost is of an attempt that is left without an exchange: more than all others
// together.
const unmatchedCost = 1e24

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
	if n == 0 || m == 0 {
		return
	}
	// least[i][j] is the cost of the first i slots with the first j exchanges.
	least := &r.least
	for j := range m + 1 {
		least[0][j] = 0
	}
	for i := 1; i <= n; i++ {
		least[i][0] = least[i-1][0] + unmatchedCost
		for j := 1; j <= m; j++ {
			least[i][j] = min(least[i-1][j]+unmatchedCost, least[i][j-1], r.pairCost(slots[i-1], exchanges[j-1])+least[i-1][j-1])
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

// pairCost returns the cost of an exchange for a slot; infinite where it does not fit.
func (r *region) pairCost(i, j uint8) float64 {
	if r.takers[j]&(1<<i) == 0 {
		return math.Inf(1)
	}
	return r.slots[i].costFrom(r.exchanges[j], r.start[j])
}
