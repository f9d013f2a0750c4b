package assemble

import (
	"slices"
	"time"
)

// timeline holds lookups in order of a time that each has while it is in it.
type timeline []entry

type entry struct {
	at     time.Time
	lookup *lookup
}

// insert adds a lookup. Most come nearly in order.
func (t *timeline) insert(at time.Time, l *lookup) {
	i := len(*t)
	for i > 0 && (*t)[i-1].at.After(at) {
		i--
	}
	*t = slices.Insert(*t, i, entry{at, l})
}

// remove takes out a lookup that was inserted with that time.
func (t *timeline) remove(at time.Time, l *lookup) {
	for i := t.from(at); i < len(*t) && (*t)[i].at.Equal(at); i++ {
		if (*t)[i].lookup == l {
			*t = slices.Delete(*t, i, i+1)
			return
		}
	}
}

// from returns the index of the first entry at or after a time.
func (t timeline) from(at time.Time) int {
	i, _ := slices.BinarySearchFunc(t, at, func(e entry, at time.Time) int { return e.at.Compare(at) })
	return i
}

// between calls each for the entries from one time to another, both included,
// until it returns false.
func (t timeline) between(from, to time.Time, each func(*lookup) bool) bool {
	for i := t.from(from); i < len(t) && !t[i].at.After(to); i++ {
		if !each(t[i].lookup) {
			return false
		}
	}
	return true
}

// shortSpan parts the lookups that last as long as most do from those that wait
// for somebody silent, so that a search need not go through all of the former
// because of a few of the latter.
const shortSpan = 64 * time.Millisecond

// spans holds lookups by when they may have sent upstream queries.
type spans struct {
	short, long timeline
	longest     time.Duration // of those in long; only grows while there are any
}

func (s *spans) insert(l *lookup, start time.Time, span time.Duration) {
	if span <= shortSpan {
		s.short.insert(start, l)
		return
	}
	if len(s.long) == 0 {
		s.longest = 0
	}
	s.longest = max(s.longest, span)
	s.long.insert(start, l)
}

func (s *spans) remove(l *lookup, start time.Time, span time.Duration) {
	if span <= shortSpan {
		s.short.remove(start, l)
	} else {
		s.long.remove(start, l)
	}
}

// around calls each for the lookups whose span may hold a time, until it
// returns false.
func (s *spans) around(at time.Time, each func(*lookup) bool) bool {
	return s.short.between(at.Add(-shortSpan-slack), at.Add(slack), each) &&
		s.long.between(at.Add(-s.longest-slack), at.Add(slack), each)
}
