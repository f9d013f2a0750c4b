package exchange

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

func pathOf(n int) []trace.Sighting {
	path := make([]trace.Sighting, n)
	for i := range path {
		path[i].NetNS = uint32(n)
	}
	return path
}

// Paths that were given back become others, and those that were not stay as they
// are.
func TestReusedPaths(t *testing.T) {
	var p paths
	for n := range maxReused + 3 {
		path := pathOf(n)
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

// A path grows as far as it has to, and takes no more memory than it needs when it is
// passed on.
func TestPathsGrowAndFit(t *testing.T) {
	var p paths
	var path []trace.Sighting
	for n := range maxSightings {
		path = append(p.grown(path), trace.Sighting{NetNS: uint32(n)})
	}
	for n := range path {
		if path[n].NetNS != uint32(n) {
			t.Fatalf("sighting %d is %d", n, path[n].NetNS)
		}
	}
	for n := 1; n <= maxSightings; n++ {
		fitted := p.fitted(append(make([]trace.Sighting, 0, 2*maxSightings), pathOf(n)...))
		if len(fitted) != n || fitted[n-1].NetNS != uint32(n) || cap(fitted) >= n+pathStep {
			t.Errorf("%d sightings: %d with room for %d", n, len(fitted), cap(fitted))
		}
		if room := cap(p.empty()); room < min(n, maxReused) {
			t.Errorf("after %d sightings there is room for %d", n, room)
		}
	}
}
