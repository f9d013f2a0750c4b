package linesort

import (
	"container/heap"
	"fmt"
)

// source is one sequence of lines to merge, in order.
type source interface {
	next() (bool, error)
	head() (*item, []byte)
}

// memoryRun is what is still in memory.
type memoryRun struct {
	sorter *Sorter
	at     int
}

func (m *memoryRun) next() (bool, error) {
	m.at++
	return m.at <= len(m.sorter.items), nil
}

func (m *memoryRun) head() (*item, []byte) {
	i := &m.sorter.items[m.at-1]
	return i, m.sorter.lines[i.from:i.to]
}

// sources is a heap with the source of the first line in front.
type sources []source

// merge calls use with every line of all, in order.
func (h sources) merge(use func(i *item, line []byte) error) error {
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
		if err := use(live[0].head()); err != nil {
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

func (h sources) Len() int { return len(h) }

func (h sources) Less(i, j int) bool {
	a, _ := h[i].head()
	b, _ := h[j].head()
	return a.compare(b) < 0
}

func (h sources) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *sources) Push(x any) { *h = append(*h, x.(source)) }

// Pop implements heap.Interface.
func (h *sources) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
