// Package chain is an intrusive hash table with several items per hash: the items carry the
// links, so that it allocates nothing for each. Thousands of exchanges and lookups come each
// second, and almost every one has a key of its own.
package chain

import (
	"iter"
	"math/rand/v2"
)

// Links join an item to its neighbours in a table, of which each has its own.
type Links[T any] struct {
	newer, older *T // in its bucket
	hash         uint64
}

// Table has a chain of items for each hash, the newest first. Join and Leave take constant
// time. It is not safe for concurrent use.
type Table[T any] struct {
	heads []*T // the newest of each bucket
	shift int  // of hashes, to the number of a bucket
	len   int
	links func(*T) *Links[T]
}

// leastBuckets is how many buckets there are at least, as a power of two.
const leastBuckets = 10

// scatter distributes hashes over buckets unpredictably for those who choose the input.
var scatter = rand.Uint64() | 1

// New returns an empty table of items that have their links for it where links says.
func New[T any](links func(*T) *Links[T]) Table[T] {
	t := Table[T]{links: links}
	t.Resize()
	return t
}

// Len returns the number of items.
func (t *Table[T]) Len() int { return t.len }

func (t *Table[T]) head(hash uint64) **T { return &t.heads[hash*scatter>>t.shift] }

// Join adds an item, which is in no chain of the table.
func (t *Table[T]) Join(hash uint64, item *T) {
	if t.len++; t.len > len(t.heads) {
		t.Resize()
	}
	t.links(item).hash = hash
	t.push(item)
}

// push makes an item the newest of its bucket.
func (t *Table[T]) push(item *T) {
	l := t.links(item)
	head := t.head(l.hash)
	if l.newer, l.older = nil, *head; l.older != nil {
		t.links(l.older).newer = item
	}
	*head = item
}

// Leave undoes Join, if there was one.
func (t *Table[T]) Leave(item *T) {
	l := t.links(item)
	switch head := t.head(l.hash); {
	case l.newer != nil:
		t.links(l.newer).older = l.older
	case *head != item:
		return
	default:
		*head = l.older
	}
	if l.older != nil {
		t.links(l.older).newer = l.newer
	}
	*l = Links[T]{}
	t.len--
}

// First returns the newest item with a hash; nil if there is none.
func (t *Table[T]) First(hash uint64) *T { return t.from(*t.head(hash), hash) }

// Next returns the one with the same hash that is older than an item; nil if there is none.
func (t *Table[T]) Next(item *T) *T {
	l := t.links(item)
	return t.from(l.older, l.hash)
}

func (t *Table[T]) from(item *T, hash uint64) *T {
	for item != nil && t.links(item).hash != hash {
		item = t.links(item).older
	}
	return item
}

// Of yields at most so many items with a hash, the newest first. No item may leave before it
// ends.
func (t *Table[T]) Of(hash uint64, most int) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for item := t.First(hash); item != nil && most > 0; item = t.Next(item) {
			if most--; !yield(item) {
				return
			}
		}
	}
}

// Resize makes at least one and a half times as many buckets as items. Join calls it when
// there are too few; call it to shrink the table after a burst.
func (t *Table[T]) Resize() {
	n := leastBuckets
	for 1<<n < t.len+t.len/2 {
		n++
	}
	old := t.heads
	t.heads, t.shift = make([]*T, 1<<n), 64-n
	for _, item := range old {
		var oldest *T
		for ; item != nil; item = t.links(item).older {
			oldest = item
		}
		for item = oldest; item != nil; {
			newer := t.links(item).newer
			t.push(item)
			item = newer
		}
	}
}
