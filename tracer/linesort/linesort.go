// Package linesort sorts any number of lines in a fixed amount of memory: what does not fit
// goes to unnamed temporary files, in sorted runs that are merged.
package linesort

import (
	"cmp"
	"fmt"
	"slices"
)

// Key is what lines are sorted by: Major first, then Minor, then the order in
// which they came.
type Key struct{ Major, Minor int64 }

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Major, o.Major), cmp.Compare(k.Minor, o.Minor))
}

// itemSize is about what an item takes beside its line.
const itemSize = 48

// item is one line that is held in memory.
type item struct {
	key      Key
	seq      uint64
	from, to int
}

func (i *item) compare(o *item) int {
	return cmp.Or(i.key.compare(o.key), cmp.Compare(i.seq, o.seq))
}

// Sorter sorts lines by their keys. Not safe for concurrent use.
type Sorter struct {
	memory int
	lines  []byte
	items  []item
	levels []*level
	count  uint64
}

// New returns a Sorter that holds about memory bytes, and twice that in Each.
func New(memory int) *Sorter { return &Sorter{memory: memory} }

// Add takes a copy of a line. It fails where the temporary files cannot be
// written.
func (s *Sorter) Add(k Key, line []byte) error {
	if held := len(s.lines) + itemSize*len(s.items); held > 0 && held+itemSize+len(line) > s.memory {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sorting the records: %w; TMPDIR names a folder with more room", err)
		}
	}
	s.count++
	from := len(s.lines)
	s.lines = append(s.lines, line...)
	s.items = append(s.items, item{key: k, seq: s.count, from: from, to: len(s.lines)})
	return nil
}

// spill writes what is in memory to a file, as one run, and keeps the runs few.
func (s *Sorter) spill() error {
	s.sort()
	at := &memoryRun{sorter: s}
	if err := s.level(0).write(sources{at}); err != nil {
		return err
	}
	s.lines, s.items = s.lines[:0], s.items[:0]
	for n := 0; len(s.levels[n].runs) == maxRuns; n++ {
		full := s.levels[n]
		if err := s.level(n + 1).write(full.sources(nil)); err != nil {
			return err
		}
		if err := full.empty(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sorter) level(n int) *level {
	if n == len(s.levels) {
		s.levels = append(s.levels, &level{})
	}
	return s.levels[n]
}

func (s *Sorter) sort() {
	slices.SortFunc(s.items, func(a, b item) int { return a.compare(&b) })
}

// Each calls use with every line, in order. The line is valid until use returns,
// whose error ends it and is returned.
func (s *Sorter) Each(use func(k Key, line []byte) error) error {
	s.sort()
	all := sources{&memoryRun{sorter: s}}
	for _, l := range s.levels {
		all = l.sources(all)
	}
	return all.merge(func(i *item, line []byte) error { return use(i.key, line) })
}

// Close gives memory and files back. The Sorter is then empty.
func (s *Sorter) Close() {
	for _, l := range s.levels {
		if l.file != nil {
			// It has no name any more, and no reader.
			_ = l.file.Close()
		}
	}
	*s = Sorter{memory: s.memory}
}
