package exchange

import "github.com/dnstrace/dnstrace/trace"

// paths keeps the memory of paths that nobody needs any more: they are most of
// what a lookup takes, and to collect them as garbage took a fifth of the tracer's
// time. Their capacities are multiples of pathStep; index 0 is for the first.
type paths struct {
	free  [maxReused / pathStep]freePaths
	usual int // how long the last one was that was passed on: most are like it
}

// freePaths are those of one capacity.
type freePaths struct {
	list [][]trace.Sighting
	idle int // how many were not needed since trim
}

const (
	pathStep  = 4
	maxReused = 24 // sightings; longer paths are rare
	maxFree   = 1024
)

// empty returns an empty path, with room for as many sightings as usual.
func (p *paths) empty() []trace.Sighting { return p.room(max(p.usual, 1)) }

// room returns an empty path with room for n sightings.
func (p *paths) room(n int) []trace.Sighting {
	class := (n - 1) / pathStep
	if n == 0 || class >= len(p.free) {
		return make([]trace.Sighting, 0, n)
	}
	free := &p.free[class]
	last := len(free.list) - 1
	if last < 0 {
		return make([]trace.Sighting, 0, (class+1)*pathStep)
	}
	path := free.list[last]
	free.list[last] = nil
	free.list = free.list[:last]
	free.idle = min(free.idle, last)
	return path
}

// copyOf returns a copy of a path, in memory of its own.
func (p *paths) copyOf(path []trace.Sighting) []trace.Sighting {
	return append(p.room(len(path)), path...)
}

// grown returns a path with room for one more.
func (p *paths) grown(path []trace.Sighting) []trace.Sighting {
	if len(path) < cap(path) {
		return path
	}
	larger := p.room(len(path) + max(pathStep, len(path)/2))
	larger = append(larger, path...)
	p.reuse(path)
	return larger
}

// fitted returns a path that takes no more memory than it needs: it may be held for
// long.
func (p *paths) fitted(path []trace.Sighting) []trace.Sighting {
	p.usual = min(len(path), maxReused)
	if cap(path)-len(path) < pathStep {
		return path
	}
	fitted := p.copyOf(path)
	p.reuse(path)
	return fitted
}

// reuse takes the memory of a path.
func (p *paths) reuse(path []trace.Sighting) {
	class := cap(path)/pathStep - 1
	if class < 0 || class >= len(p.free) || cap(path)%pathStep != 0 || len(p.free[class].list) >= maxFree {
		return
	}
	p.free[class].list = append(p.free[class].list, path[:0])
}

// trim lets go of what was not needed since the last time.
func (p *paths) trim() {
	for i := range p.free {
		free := &p.free[i]
		keep := len(free.list) - min(free.idle, len(free.list))
		list := make([][]trace.Sighting, keep)
		copy(list, free.list[:keep])
		free.list, free.idle = list, keep
	}
}
