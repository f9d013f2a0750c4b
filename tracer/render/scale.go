package render

import (
	"cmp"
	"slices"
	"time"
)

// Axes that are mostly silence are cut: a 2 s timeout beside steps of 100 µs
// would leave less than a column for all the steps. A silence is cut out when it
// is this many times longer than all that is not cut; below, the proportion says
// more than the steps would.
const cutRatio = 40

const (
	maxCuts = 4
	// Of a part between cuts, which is narrower than any of them.
	leastColumns = 2
	cutWidth     = 6 // least columns of a cut: room for its length
)

// scale maps time to columns: linear, but for the silences that were cut out: those
// are drawn shorter than they were, and still wider than all that was shorter.
type scale struct {
	width    int
	segments []segment
}

type segment struct {
	from, to time.Duration
	left     int // columns
	right    int
	cut      bool
}

// newScale makes a scale over the moments at which something happened.
func newScale(moments []time.Duration, width int) scale {
	slices.Sort(moments)
	moments = slices.Compact(moments)
	if len(moments) == 0 {
		moments = []time.Duration{0}
	}
	from, to := moments[0], moments[len(moments)-1]
	if to == from {
		to = from + 1
	}
	s := scale{width: width, segments: []segment{{from: from, to: to, right: width}}}
	if cuts := silences(moments, width); len(cuts) > 0 {
		s.segments = split(from, to, cuts, width)
	}
	return s
}

// silences returns the stretches to cut out, in order of time: as many as have room.
func silences(moments []time.Duration, width int) []segment {
	var gaps []segment
	for i := 1; i < len(moments); i++ {
		gaps = append(gaps, segment{from: moments[i-1], to: moments[i], cut: true})
	}
	slices.SortStableFunc(gaps, func(a, b segment) int { return cmp.Compare(b.to-b.from, a.to-a.from) })
	rest := moments[len(moments)-1] - moments[0]
	for i, g := range gaps {
		if i == maxCuts || cutWidth*(i+1)+leastColumns*(i+2) > width {
			break
		}
		rest -= g.to - g.from
		if rest > 0 && g.to-g.from > cutRatio*rest {
			cuts := gaps[:i+1]
			slices.SortFunc(cuts, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
			return cuts
		}
	}
	return nil
}

// split gives columns to the cuts and to the parts between them. The parts share what the
// least width of the cuts leaves, in proportion, but each is narrower than a cut; the cuts
// share the rest, the longest first.
func split(from, to time.Duration, cuts []segment, width int) []segment {
	var segments []segment
	at := from
	for _, c := range cuts {
		segments = append(segments, segment{from: at, to: c.from}, c)
		at = c.to
	}
	segments = append(segments, segment{from: at, to: to})

	var shown, most, silent time.Duration
	for _, g := range segments {
		if g.cut {
			silent += g.to - g.from
		} else {
			shown += g.to - g.from
			most = max(most, g.to-g.from)
		}
	}
	cut := max(cutWidth, width/(2*len(cuts)+1)) // the least of all cuts
	if cut*len(cuts)+leastColumns*(len(cuts)+1) > width {
		cut = cutWidth
	}
	spare := width - cut*len(cuts) - leastColumns*(len(cuts)+1)
	perTime := min(float64(spare)/float64(shown), float64(cut-1-leastColumns)/float64(most)) // columns
	sizes := make([]int, len(segments))
	used, longest := 0, 1
	for i, g := range segments {
		if g.cut {
			sizes[i] = cut
			if g.to-g.from > segments[longest].to-segments[longest].from {
				longest = i
			}
		} else {
			sizes[i] = leastColumns + int(perTime*float64(g.to-g.from))
		}
		used += sizes[i]
	}
	rest := width - used
	for i, g := range segments {
		if g.cut {
			more := int(float64(rest) * float64(g.to-g.from) / float64(silent))
			sizes[i] += more
			used += more
		}
	}
	sizes[longest] += width - used // what rounding left over
	left := 0
	for i := range segments {
		segments[i].left, segments[i].right = left, left+sizes[i]
		left += sizes[i]
	}
	return segments
}

// position returns where a time is, in columns from the left.
func (s scale) position(t time.Duration) float64 {
	for i, g := range s.segments {
		if t > g.to && i < len(s.segments)-1 {
			continue
		}
		if g.to == g.from {
			return float64(g.left)
		}
		share := float64(t-g.from) / float64(g.to-g.from)
		return float64(g.left) + min(max(share, 0), 1)*float64(g.right-g.left)
	}
	return 0
}

// span returns the columns of a stretch of time: at least one, the last
// excluded.
func (s scale) span(from, to time.Duration) (left, right int) {
	left = min(int(s.position(from)), s.width-1)
	// A twentieth of a column is not worth a whole one.
	right = min(int(s.position(to)+0.95), s.width)
	return left, max(right, left+1)
}

// cutAt tells whether a column shows that silence was cut out: the middle two of
// a cut.
func (s scale) cutAt(column int) bool {
	for _, g := range s.segments {
		if middle := (g.left + g.right) / 2; g.cut && (column == middle-1 || column == middle) {
			return true
		}
	}
	return false
}
