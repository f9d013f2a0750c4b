package exchange

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// Paths that were given back become others, and those that were not stay as they
// are.
func TestReusedPaths(t *testing.T) {
	var p paths
	for n := range maxReused + 3 {
		path := make([]trace.Sighting, n)
		for i := range path {
			path[i].NetNS = uint32(n)
		}
		first := p.copyOf(path)
		p.reuse(first)
		second := p.copyOf(path)
		third := p.copyOf(path)
		for _, c := range [][]trace.Sighting{second, third} {
			if len(c) != n || n > 0 && c[n-1].NetNS != uint32(n) {
				t.Errorf("%d sightings: got %d, %v", n, len(c), c)
			}
		}
		if n == 0 {
			continue
		}
		if reused := &first[0] == &second[0]; reused != (n <= maxReused) {
			t.Errorf("%d sightings: used again: %v", n, reused)
		}
		if &second[0] == &third[0] || &second[0] == &path[0] {
			t.Errorf("%d sightings: two paths share memory", n)
		}
	}
}
