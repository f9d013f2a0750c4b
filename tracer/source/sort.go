package source

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
)

// sorter gives lines back in order of time. What memory does not hold goes to a
// temporary file: records of one lookup may stand anywhere in their file, as
// where the file of one node follows that of another, and memory must not grow
// with it.
type sorter struct {
	memory int // bytes of lines held at once
	lines  []byte
	items  []item
	file   *os.File
	out    *bufio.Writer
	size   int64
	runs   []run
	count  uint64
}

// item is one line: where it is in memory, and what it is sorted by.
type item struct {
	at       int64 // nanoseconds
	seq      uint64
	from, to int
}

// run is a part of the file that is sorted.
type run struct{ from, size int64 }

// itemHead is the length of what stands before a line in the file: its time,
// its place among all lines, its length.
const itemHead = 8 + 8 + 4

// add takes a copy of a line.
func (s *sorter) add(at int64, line []byte) error {
	if len(s.lines) > 0 && len(s.lines)+len(line) > s.memory {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sorting the records: %w; TMPDIR names a folder with more room", err)
		}
	}
	s.count++
	from := len(s.lines)
	s.lines = append(s.lines, line...)
	s.items = append(s.items, item{at: at, seq: s.count, from: from, to: len(s.lines)})
	return nil
}

// spill writes what is in memory to the file, as one run.
func (s *sorter) spill() error {
	if s.file == nil {
		f, err := os.CreateTemp("", "dnstrace-sort-")
		if err != nil {
			return err
		}
		// Without a name it goes with the process, however that ends.
		if err := os.Remove(f.Name()); err != nil {
			_ = f.Close()
			return err
		}
		s.file, s.out = f, bufio.NewWriterSize(f, 256<<10)
	}
	s.sort()
	from := s.size
	var head [itemHead]byte
	for _, i := range s.items {
		binary.LittleEndian.PutUint64(head[:], uint64(i.at))
		binary.LittleEndian.PutUint64(head[8:], i.seq)
		binary.LittleEndian.PutUint32(head[16:], uint32(i.to-i.from))
		if _, err := s.out.Write(head[:]); err != nil {
			return err
		}
		if _, err := s.out.Write(s.lines[i.from:i.to]); err != nil {
			return err
		}
		s.size += int64(itemHead + i.to - i.from)
	}
	s.runs = append(s.runs, run{from: from, size: s.size - from})
	s.lines, s.items = s.lines[:0], s.items[:0]
	return s.out.Flush()
}

func (s *sorter) sort() {
	slices.SortFunc(s.items, func(a, b item) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
}

// each calls use with every line, in order of time and then of coming; the line
// is valid until the next one.
func (s *sorter) each(use func(line []byte) error) error {
	s.sort()
	if s.file == nil {
		for _, i := range s.items {
			if err := use(s.lines[i.from:i.to]); err != nil {
				return err
			}
		}
		return nil
	}
	sources := mergeHeap{&memoryRun{sorter: s}}
	for _, r := range s.runs {
		sources = append(sources, &fileRun{in: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.size), 64<<10)})
	}
	return sources.merge(use)
}

// close gives memory and file back.
func (s *sorter) close() {
	if s.file != nil {
		// It has no name any more, and nobody reads it.
		_ = s.file.Close()
	}
	*s = sorter{}
}

// sortedRun is one sequence of lines to merge.
type sortedRun interface {
	next() (bool, error)
	head() (at int64, seq uint64, line []byte)
}

// memoryRun is what is still in memory.
type memoryRun struct {
	sorter *sorter
	at     int
}

func (m *memoryRun) next() (bool, error) {
	m.at++
	return m.at <= len(m.sorter.items), nil
}

func (m *memoryRun) head() (int64, uint64, []byte) {
	i := m.sorter.items[m.at-1]
	return i.at, i.seq, m.sorter.lines[i.from:i.to]
}

// fileRun is a run of the file.
type fileRun struct {
	in   *bufio.Reader
	at   int64
	seq  uint64
	line []byte
}

func (f *fileRun) next() (bool, error) {
	var head [itemHead]byte
	if _, err := io.ReadFull(f.in, head[:]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	f.at, f.seq = int64(binary.LittleEndian.Uint64(head[:])), binary.LittleEndian.Uint64(head[8:])
	f.line = slices.Grow(f.line[:0], int(binary.LittleEndian.Uint32(head[16:])))[:binary.LittleEndian.Uint32(head[16:])]
	_, err := io.ReadFull(f.in, f.line)
	return true, err
}

func (f *fileRun) head() (int64, uint64, []byte) { return f.at, f.seq, f.line }

// mergeHeap has the run with the earliest line in front.
type mergeHeap []sortedRun

func (h mergeHeap) merge(use func(line []byte) error) error {
	live := h[:0]
	for _, r := range h {
		more, err := r.next()
		if err != nil {
			return fmt.Errorf("reading the sorted records: %w", err)
		}
		if more {
			live = append(live, r)
		}
	}
	heap.Init(&live)
	for len(live) > 0 {
		_, _, line := live[0].head()
		if err := use(line); err != nil {
			return err
		}
		more, err := live[0].next()
		if err != nil {
			return fmt.Errorf("reading the sorted records: %w", err)
		}
		if more {
			heap.Fix(&live, 0)
		} else {
			heap.Pop(&live)
		}
	}
	return nil
}

func (h mergeHeap) Len() int { return len(h) }

func (h mergeHeap) Less(i, j int) bool {
	a, m, _ := h[i].head()
	b, n, _ := h[j].head()
	return cmp.Or(cmp.Compare(a, b), cmp.Compare(m, n)) < 0
}

func (h mergeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *mergeHeap) Push(x any) { *h = append(*h, x.(sortedRun)) }

// Pop implements heap.Interface.
func (h *mergeHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
