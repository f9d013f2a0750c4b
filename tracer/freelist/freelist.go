// Package freelist reuses memory that would cost more to collect as garbage than is done
// with it, and releases what only a burst needed: Go's maps and slices keep the size of the
// most that they ever held. It has no clock: its users decide when to trim.
package freelist

import (
	"maps"
	"time"
)

// Every is how often users trim. What only a burst needed is released within two of these
// intervals.
const Every = 30 * time.Second

// Small is the number of elements up to which a table is never too large: some 100 KiB.
const Small = 1024

// most bounds the length of a list: what ends in one round of a busy node.
const most = 1024

// List is a free list. The zero value is empty. Not safe for concurrent use.
type List[T any] struct {
	list []*T
	idle int // not needed since Trim
}

// Get returns a value to reuse, which is not cleared, or a new one.
func (s *List[T]) Get() *T {
	last := len(s.list) - 1
	if last < 0 {
		return new(T)
	}
	x := s.list[last]
	s.list[last] = nil
	s.list = s.list[:last]
	s.idle = min(s.idle, last)
	return x
}

// Put adds a value that nothing refers to any more.
func (s *List[T]) Put(x *T) {
	if len(s.list) < most {
		s.list = append(s.list, x)
	}
}

// Trim releases the values that were not needed since the last call.
func (s *List[T]) Trim() {
	keep := len(s.list) - min(s.idle, len(s.list))
	list := make([]*T, keep)
	copy(list, s.list[:keep])
	s.list, s.idle = list, keep
}

// Len returns how many values are kept.
func (s *List[T]) Len() int { return len(s.list) }

// TooLarge tells whether a table's capacity is far above held, the most that it held since
// the last call.
func TooLarge(room, held int) bool { return room > 4*max(held, Small) }

// Compact returns a copy of m in as much memory as it needs.
func Compact[K comparable, V any](m map[K]V) map[K]V {
	smaller := make(map[K]V, len(m))
	maps.Copy(smaller, m)
	return smaller
}
