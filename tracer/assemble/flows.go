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

// maxOfFlow bounds the lookups of one flow that are looked at: a client uses its port and ID
// again after a while, and may ask several servers with them. Who asks ever new ones so
// does not have each compared with all.
const maxOfFlow = 64

// of yields the lookups with a flow, those first that were added first; of more than
// maxOfFlow the newest. The one that it yielded may be removed; once others are, it must not
// go on.
func (f *flows) of(flow trace.Flow) iter.Seq[*lookup] {
	return func(yield func(*lookup) bool) {
		var found [maxOfFlow]*lookup
		n := 0
		for l := *f.bucket(&flow); l != nil && n < maxOfFlow; l = l.bucket.older {
			if l.flow == flow {
				found[n] = l
				n++
			}
		}
		for n > 0 {
			if n--; !yield(found[n]) {
				return
			}
		}
	}
}

func (f *flows) add(l *lookup) {
	if f.len++; f.len > len(f.buckets) {
		f.resize()
	}
	f.push(l)
}

// neighbours of a lookup in its bucket, which begins with the newest.
type neighbours struct{ newer, older *lookup }

func (f *flows) push(l *lookup) {
	first := f.bucket(&l.flow)
	if l.bucket = (neighbours{older: *first}); l.bucket.older != nil {
		l.bucket.older.bucket.newer = l
	}
	*first = l
}

// remove takes out a lookup, if it is in.
func (f *flows) remove(l *lookup) {
	switch first := f.bucket(&l.flow); {
	case l.bucket.newer != nil:
		l.bucket.newer.bucket.older = l.bucket.older
	case *first != l:
		return
	default:
		*first = l.bucket.older
	}
	if l.bucket.older != nil {
		l.bucket.older.bucket.newer = l.bucket.newer
	}
	l.bucket = neighbours{}
	f.len--
}

// resize makes half as many buckets again as there are lookups, or more.
func (f *flows) resize() {
	n := leastBuckets
	for 1<<n < f.len+f.len/2 {
		n++
	}
	old := f.buckets
	f.buckets, f.shift = make([]*lookup, 1<<n), 64-n
	for _, newest := range old {
		oldest := newest
		for oldest != nil && oldest.bucket.older != nil {
			oldest = oldest.bucket.older
		}
		for l := oldest; l != nil; {
			newer := l.bucket.newer
			f.push(l)
			l = newer
		}
	}
}
