package exchange

import (
	"iter"
	"math/rand/v2"
)

// What exchanges are chained by.
const (
	chainKey      = iota // all: by their key
	chainSocket          // those over UDP: by their client's socket
	chainQuestion        // all that ask one: by it
	chainKin             // all: by what the lookups of one call have in common
	chainings
)

// links join an exchange to its neighbours in a chain.
type links struct {
	newer, older *open
	hash         uint64
}

// chains are lists of open exchanges that have a hash in common, the newest first: each
// is joined and left in constant time. They are a hash table that has no entries but the
// exchanges.
type chains struct {
	heads []*open // the newest of each bucket
	shift int     // of hashes, to the number of a bucket
	len   int
	by    int // which links of an exchange are this chain's
}

// leastBuckets is how many buckets there are at least, as a power of two.
const leastBuckets = 10

func newChains(by int) chains {
	c := chains{by: by}
	c.resize()
	return c
}

// scatter parts hashes between buckets as nobody can foretell who chooses what is hashed.
var scatter = rand.Uint64() | 1

func (c *chains) head(hash uint64) **open {
	return &c.heads[hash*scatter>>c.shift]
}

func (c *chains) join(hash uint64, ex *open) {
	if c.len++; c.len > len(c.heads) {
		c.resize()
	}
	ex.links[c.by].hash = hash
	c.push(ex)
}

// push makes ex the newest of its bucket.
func (c *chains) push(ex *open) {
	l := &ex.links[c.by]
	head := c.head(l.hash)
	if l.newer, l.older = nil, *head; l.older != nil {
		l.older.links[c.by].newer = ex
	}
	*head = ex
}

// leave undoes join, if there was one.
func (c *chains) leave(ex *open) {
	l := &ex.links[c.by]
	if head := c.head(l.hash); l.newer != nil {
		l.newer.links[c.by].older = l.older
	} else if *head != ex {
		return
	} else {
		*head = l.older
	}
	if l.older != nil {
		l.older.links[c.by].newer = l.newer
	}
	*l = links{}
	c.len--
}

// of yields the exchanges with a hash, at most so many.
func (c *chains) of(hash uint64, most int) iter.Seq[*open] {
	return func(yield func(*open) bool) {
		for ex := *c.head(hash); ex != nil && most > 0; {
			l := &ex.links[c.by]
			if l.hash == hash {
				if most--; !yield(ex) {
					return
				}
			}
			ex = l.older
		}
	}
}

// resize makes half as many buckets again as there are exchanges, or more.
func (c *chains) resize() {
	n := leastBuckets
	for 1<<n < c.len+c.len/2 {
		n++
	}
	old := c.heads
	c.heads, c.shift = make([]*open, 1<<n), 64-n
	for _, ex := range old {
		var oldest *open
		for ; ex != nil; ex = ex.links[c.by].older {
			oldest = ex
		}
		for ex = oldest; ex != nil; {
			newer := ex.links[c.by].newer
			c.push(ex)
			ex = newer
		}
	}
}
