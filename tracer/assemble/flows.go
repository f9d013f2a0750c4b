package assemble

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"

	"github.com/dnstrace/dnstrace/trace"
)

// flows finds lookups by their flow. It is a hash table that has no entries but the lookups,
// of which nearly every one has a flow of its own.
type flows struct {
	buckets []*lookup
	shift   int // of hashes, to the number of a bucket
	len     int
}

// leastBuckets is how many buckets there are at least, as a power of two.
const leastBuckets = 10

// scatter parts flows between buckets as nobody can foretell who chooses what is asked.
var scatter = rand.Uint64() | 1

func newFlows() *flows {
	f := &flows{}
	f.resize()
	return f
}

func (f *flows) bucket(flow *trace.Flow) **lookup {
	return &f.buckets[binary.NativeEndian.Uint64(flow[:])*scatter>>f.shift]
}

// of yields the lookups with a flow, those first that were added first. The one that it
// yielded may be removed; once others are, it must not go on.
func (f *flows) of(flow trace.Flow) iter.Seq[*lookup] {
	return func(yield func(*lookup) bool) {
		for l := *f.bucket(&flow); l != nil; {
			next := l.sameBucket
			if l.flow == flow && !yield(l) {
				return
			}
			l = next
		}
	}
}

func (f *flows) add(l *lookup) {
	if f.len++; f.len > len(f.buckets) {
		f.resize()
	}
	f.push(l)
}

// push puts l at the end of its bucket.
func (f *flows) push(l *lookup) {
	at := f.bucket(&l.flow)
	for *at != nil {
		at = &(*at).sameBucket
	}
	l.sameBucket = nil
	*at = l
}

func (f *flows) remove(l *lookup) {
	for at := f.bucket(&l.flow); *at != nil; at = &(*at).sameBucket {
		if *at == l {
			*at, l.sameBucket = l.sameBucket, nil
			f.len--
			return
		}
	}
}

// resize makes half as many buckets again as there are lookups, or more.
func (f *flows) resize() {
	n := leastBuckets
	for 1<<n < f.len+f.len/2 {
		n++
	}
	old := f.buckets
	f.buckets, f.shift = make([]*lookup, 1<<n), 64-n
	for _, l := range old {
		for l != nil {
			next := l.sameBucket
			f.push(l)
			l = next
		}
	}
}
