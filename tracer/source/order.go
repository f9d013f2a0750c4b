package source

import (
	"cmp"

	"github.com/dnstrace/dnstrace/trace"
)

// entryHeap orders by begin, and puts a trace before loose records, which may be part of it.
type entryHeap []*entry

func (h entryHeap) Len() int { return len(h) }

func (h entryHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.at != b.at || (a.trace == nil) == (b.trace == nil) {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) < 0
	}
	return a.trace != nil
}

func (h entryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *entryHeap) Push(x any) { *h = append(*h, x.(*entry)) }

// Pop implements heap.Interface.
func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

// fed is a record on its way into the assembler.
type fed struct {
	record trace.Record
	end    int64
	seq    uint64
}

// feedHeap has what ended first in front.
type feedHeap []*fed

func (h feedHeap) Len() int { return len(h) }

func (h feedHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].end, h[j].end), cmp.Compare(h[i].seq, h[j].seq)) < 0
}

func (h feedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *feedHeap) Push(x any) { *h = append(*h, x.(*fed)) }

// Pop implements heap.Interface.
func (h *feedHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
