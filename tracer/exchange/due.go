package exchange

// dueHeap orders the open exchanges by when to look at them next.
type dueHeap []*open

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due < h[j].due }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	ex := x.(*open)
	ex.index = int32(len(*h))
	*h = append(*h, ex)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	ex := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return ex
}
