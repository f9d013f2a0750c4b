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
	maxCuts  = 4
	cutWidth = 6 // columns of a cut: room for its length
)

// scale maps time to columns: linear, but for the silences that were cut out.
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
	if cuts := silences(moments); len(cuts) > 0 {
		s.segments = split(from, to, cuts, width)
	}
	return s
}

// silences returns the stretches to cut out, in order of time.
func silences(moments []time.Duration) []segment {
	var gaps []segment
	for i := 1; i < len(moments); i++ {
		gaps = append(gaps, segment{from: moments[i-1], to: moments[i], cut: true})
	}
	slices.SortStableFunc(gaps, func(a, b segment) int { return cmp.Compare(b.to-b.from, a.to-a.from) })
	rest := moments[len(moments)-1] - moments[0]
	for i, g := range gaps {
		if i == maxCuts {
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

// split gives the cuts their columns and the time between them the others, in
// proportion, but each at least a few.
func split(from, to time.Duration, cuts []segment, width int) []segment {
	var segments []segment
	at := from
	for _, c := range cuts {
		segments = append(segments, segment{from: at, to: c.from}, c)
		at = c.to
	}
	segments = append(segments, segment{from: at, to: to})

	const least = 2
	var shown time.Duration
	for _, g := range segments {
		if !g.cut {
			shown += g.to - g.from
		}
	}
	spare := width - cutWidth*len(cuts) - least*(len(cuts)+1)
	left, widest := 0, 0
	for i := range segments {
		g := &segments[i]
		columns := cutWidth
		if !g.cut {
			columns = least + int(float64(spare)*float64(g.to-g.from)/float64(shown))
		}
		g.left, g.right = left, left+columns
		left = g.right
		if !g.cut && g.to-g.from > segments[widest].to-segments[widest].from || segments[widest].cut {
			widest = i
		}
	}
	// What rounding left over goes to the longest part.
	extra := width - left
	segments[widest].right += extra
	for i := widest + 1; i < len(segments); i++ {
		segments[i].left += extra
		segments[i].right += extra
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
