// Package spare keeps memory to be used again, as collecting it as garbage would cost
// more than what is done with it, and lets go of what only a burst needed: Go's maps
// and lists keep the size of the most that they ever held. It has no clock: its users
// say when.
package spare

import (
	"maps"
	"time"
)

// Every is how often users let go. What a burst needed and nothing else does is gone
// within two of these times.
const Every = 30 * time.Second

// Small is of how many elements a table is never too large: they take some 100 KiB.
const Small = 1024

// most bounds what is kept to be used again: what ends in a round of a busy node.
const most = 1024

// Of keeps values to be used again. The zero value is empty. It is for one goroutine.
type Of[T any] struct {
	list []*T
	idle int // how many were not needed since Trim
}

// Take returns memory in which anything may be.
func (s *Of[T]) Take() *T {
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

// Give takes what nothing refers to any more.
func (s *Of[T]) Give(x *T) {
	if len(s.list) < most {
		s.list = append(s.list, x)
	}
}

// Trim lets go of what was not needed since the last time.
func (s *Of[T]) Trim() {
	keep := len(s.list) - min(s.idle, len(s.list))
	list := make([]*T, keep)
	copy(list, s.list[:keep])
	s.list, s.idle = list, keep
}

// Len returns how many values are kept.
func (s *Of[T]) Len() int { return len(s.list) }

// TooLarge tells whether a table has room for many more than the most that it held
// since it was asked last.
func TooLarge(room, held int) bool { return room > 4*max(held, Small) }

// Map returns a map in as much memory as it needs.
func Map[K comparable, V any](m map[K]V) map[K]V {
	smaller := make(map[K]V, len(m))
	maps.Copy(smaller, m)
	return smaller
}
