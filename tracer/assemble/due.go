package assemble

import "bytes"

// dueHeap orders lookups by when to look at them next. Equal ones are in the order of
// what they are, so that the order in which records come makes no difference.
type dueHeap []*lookup

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	x, y := h[i], h[j]
	if order := x.due.Compare(y.due); order != 0 {
		return order < 0
	}
	return bytes.Compare(x.flow[:], y.flow[:]) < 0
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	l := x.(*lookup)
	l.heapIndex = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.heapIndex = -1
	return l
}

// queue is lookups in the order in which they came.
type queue struct {
	first, last *lookup
	size        int // bytes
}

// push adds l at the end; it is in no other queue.
func (q *queue) push(l *lookup) {
	l.list, l.before, l.after = q, q.last, nil
	if q.last != nil {
		q.last.after = l
	} else {
		q.first = l
	}
	q.last = l
	q.size += l.size
}

// remove takes l out of the queue that it is in.
func (l *lookup) remove() {
	q := l.list
	if q == nil {
		return
	}
	if l.before != nil {
		l.before.after = l.after
	} else {
		q.first = l.after
	}
	if l.after != nil {
		l.after.before = l.before
	} else {
		q.last = l.before
	}
	q.size -= l.size
	l.list, l.before, l.after = nil, nil, nil
}

// resize accounts l with another size.
func (l *lookup) resize(bytes int) {
	if l.list != nil {
		l.list.size += bytes - l.size
	}
	l.size = bytes
}
