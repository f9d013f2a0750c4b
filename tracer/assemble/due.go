package assemble

import (
	"bytes"
	"time"
)

// SetIndex implements agenda.Item.
func (l *lookup) SetIndex(i int) { l.heapIndex = i }

// Before implements agenda.Item: those of one time are in the order of what they are, so
// that the order in which records come makes no difference.
func (l *lookup) Before(other *lookup) bool { return bytes.Compare(l.flow[:], other.flow[:]) < 0 }

// await holds a lookup until a time, at which to look at it.
func (a *Assembler) await(l *lookup, due time.Time) {
	l.due = due
	if l.heapIndex < 0 {
		a.due.Add(l, due.UnixNano())
	} else {
		a.due.Move(l.heapIndex, due.UnixNano())
	}
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
