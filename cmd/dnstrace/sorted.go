package main

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/tracer/linesort"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// Bounds of what is kept in memory while any number of lookups is sorted.
const (
	sortedMemory = 4 << 20 // bytes, of each of two sorters
	recentCalls  = 1024    // whose other lookups are recognized
	longestCall  = 256     // lookups that are shown under one head; a call has some ten
)

// sorted finds any number of lookups, in constant memory: what it does not hold is
// in temporary files. It sorts twice, first to bring the lookups of a call together,
// then by the latest of each call.
type sorted struct {
	limit     int // calls, and lookups of no call; 0: all
	alone     bool
	byCall    *linesort.Sorter
	seed      maphash.Seed
	unmatched []kept   // the last that do not match
	calls     []string // of the last that do, in a ring
	call      int      // where the next one goes in it
	isCall    map[string]bool
	matched   int
	used      int // of those that match
	scratch   []byte
	line      []byte
}

func newSorted(limit int, alone bool) *sorted {
	return &sorted{limit: limit, alone: alone, byCall: linesort.New(sortedMemory), seed: maphash.MakeSeed(), isCall: map[string]bool{}}
}

func (s *sorted) add(l source.Lookup) error {
	s.matched++
	call := callOf(l)
	if err := s.put(pack(&s.scratch, l, call, true)); err != nil || s.alone || s.isCall[call] {
		return err
	}
	s.remember(call)
	var err error
	s.unmatched = slices.DeleteFunc(s.unmatched, func(n kept) bool {
		if n.call != call || err != nil {
			return false
		}
		err = s.put(n)
		return true
	})
	return err
}

func (s *sorted) addOther(l source.Lookup) error {
	call := callOf(l)
	switch {
	case s.alone:
	case s.isCall[call]:
		return s.put(pack(&s.scratch, l, call, false))
	case l.Trace.Resolution != "":
		if len(s.unmatched) == maxUnmatched {
			s.unmatched = slices.Delete(s.unmatched, 0, maxUnmatched/2)
		}
		s.unmatched = append(s.unmatched, pack(&s.scratch, l, call, false))
	}
	return nil
}

// remember keeps the last calls: their other lookups are close to them.
func (s *sorted) remember(call string) {
	if len(s.calls) < recentCalls {
		s.calls = append(s.calls, call)
	} else {
		delete(s.isCall, s.calls[s.call])
		s.calls[s.call] = call
		s.call = (s.call + 1) % recentCalls
	}
	s.isCall[call] = true
}

// put gives a lookup to the first sorter: by call, and in it the latest first.
func (s *sorted) put(l kept) error {
	call := int64(maphash.String(s.seed, l.call))
	if s.alone {
		call = int64(s.matched) // each its own
	}
	s.line = append(s.line[:0], 0)
	if l.matches {
		s.line[0] = 1
	}
	return s.byCall.Add(linesort.Key{Major: call, Minor: -l.time.UnixNano()}, append(s.line, l.packed...))
}

// errEnough ends the second sorting at the limit.
var errEnough = errors.New("as many as were asked for")

func (s *sorted) each(use func(group []kept) error) error {
	byLatest := linesort.New(sortedMemory)
	defer byLatest.Close()
	if err := s.sortByLatest(byLatest); err != nil {
		return err
	}
	var group []kept
	var of linesort.Key
	calls := 0
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		calls++
		for i := range group {
			if group[i].matches {
				s.used++
			}
		}
		err := use(group)
		group = nil
		return err
	}
	err := byLatest.Each(func(k linesort.Key, line []byte) error {
		if k != of || len(group) == longestCall {
			if err := flush(); err != nil {
				return err
			}
			if of = k; s.limit > 0 && calls == s.limit {
				return errEnough
			}
		}
		at := time.Unix(0, int64(binary.LittleEndian.Uint64(line)))
		group = append(group, kept{packed: slices.Clone(line[9:]), time: at, matches: line[8] == 1})
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err != nil:
		return err
	}
	return flush()
}

// sortByLatest gives all lookups to a second sorter, with their time in front: by
// the latest of their call, which comes first in the first sorter, then by call.
func (s *sorted) sortByLatest(byLatest *linesort.Sorter) error {
	call, latest, first := int64(0), int64(0), true
	err := s.byCall.Each(func(k linesort.Key, line []byte) error {
		if first || k.Major != call {
			call, latest, first = k.Major, k.Minor, false
		}
		s.line = binary.LittleEndian.AppendUint64(s.line[:0], uint64(-k.Minor))
		return byLatest.Add(linesort.Key{Major: latest, Minor: call}, append(s.line, line...))
	})
	s.byCall.Close()
	return err
}

func (s *sorted) found() int { return s.matched }

func (s *sorted) left() int { return s.matched - s.used }

func (s *sorted) close() { s.byCall.Close() }
