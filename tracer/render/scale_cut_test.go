package render

import (
	"slices"
	"testing"
	"time"
)

// Where silence is cut out, it is still as wide as anything between: no step of a few
// microseconds has a longer bar than the wait that matters.
func TestCutsAreTheWidest(t *testing.T) {
	const us, ms, s = time.Microsecond, time.Millisecond, time.Second
	for name, moments := range map[string][]time.Duration{
		"one wait":             {0, 9 * us, 82 * us, 91 * us, 5 * s, 5*s + 40*us},
		"steps after it":       {0, 3 * us, 16 * us, 1011 * ms, 1011*ms + 17*us, 1011*ms + 54*us},
		"two waits":            {0, 90 * us, 2 * s, 2*s + 200*us, 7 * s, 7*s + 10*us},
		"a short and a long":   {0, 90 * us, 200 * ms, 200*ms + 200*us, 9 * s, 9*s + 900*us},
		"four waits":           {0, 50 * us, s, s + 50*us, 3 * s, 3*s + 50*us, 6 * s, 6*s + 50*us, 10 * s, 10*s + 50*us},
		"a wait at the end":    {0, 10 * us, 30 * us, 5 * s},
		"a wait at the start":  {0, 5 * s, 5*s + 30*us},
		"five waits, one less": {0, 10 * us, s, 2 * s, 3 * s, 4 * s, 5*s + 10*us, 5*s + 30*us},
	} {
		for width := 14; width < 100; width++ {
			sc := newScale(slices.Clone(moments), width)
			at, narrowest, widest := 0, width, 0
			var longest segment
			for _, g := range sc.segments {
				if g.left != at || g.right <= g.left {
					t.Fatalf("%s, %d columns: %+v", name, width, sc.segments)
				}
				at = g.right
				switch columns := g.right - g.left; {
				case g.cut:
					narrowest = min(narrowest, columns)
					if g.to-g.from > longest.to-longest.from {
						longest = g
					}
				default:
					widest = max(widest, columns)
				}
			}
			if at != width {
				t.Errorf("%s, %d columns: ends at %d", name, width, at)
			}
			if len(sc.segments) == 1 {
				continue
			}
			if widest >= narrowest {
				t.Errorf("%s, %d columns: a cut of %d columns beside steps of %d: %+v", name, width, narrowest, widest, sc.segments)
			}
			for _, g := range sc.segments {
				if g.right-g.left > longest.right-longest.left {
					t.Errorf("%s, %d columns: the longest wait is not the widest: %+v", name, width, sc.segments)
				}
			}
		}
	}
}
