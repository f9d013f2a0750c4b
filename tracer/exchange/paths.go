package exchange

import "github.com/dnstrace/dnstrace/trace"

// paths keeps the memory of paths that nobody needs any more: they are most of
// what a lookup takes, and to collect them as garbage took a fifth of the tracer's
// time. Their capacities are multiples of pathStep; index 0 is for the first.
type paths [maxReused / pathStep][][]trace.Sighting

const (
	pathStep  = 4
	maxReused = 24 // sightings; longer paths are rare
	maxFree   = 1024
)

// copyOf returns a copy of a path, in memory of its own.
func (p *paths) copyOf(path []trace.Sighting) []trace.Sighting {
	class := (len(path) - 1) / pathStep
	if len(path) == 0 || class >= len(p) {
		return append(make([]trace.Sighting, 0, len(path)), path...)
	}
	free := p[class]
	if n := len(free); n > 0 {
		p[class] = free[:n-1]
		return append(free[n-1], path...)
	}
	return append(make([]trace.Sighting, 0, (class+1)*pathStep), path...)
}

// reuse takes the memory of a path.
func (p *paths) reuse(path []trace.Sighting) {
	class := cap(path)/pathStep - 1
	if class < 0 || class >= len(p) || cap(path)%pathStep != 0 || len(p[class]) >= maxFree {
		return
	}
	p[class] = append(p[class], path[:0])
}

// Reuse takes back the memory of a record that nobody refers to any more: its path
// may become that of another. It is for the owner of the record alone; to leave it
// to the garbage collector is never wrong.
func (t *Table) Reuse(ex *trace.Exchange) {
	t.paths.reuse(ex.Path)
	ex.Path = nil
}
