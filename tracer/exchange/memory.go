package exchange

import "github.com/dnstrace/dnstrace/tracer/spare"

// peak is the most that tables held, which is what they have memory for.
type peak struct {
	open  int // since shrink last looked
	conns int // since they were made
	next  int64
}

// shrink lets go of the memory that only a burst needed.
func (t *Table) shrink(now int64) {
	if now < t.peak.next {
		return
	}
	t.peak.next = now + int64(spare.Every)
	if spare.TooLarge(cap(t.due), t.peak.open) {
		t.due = append(make(dueHeap, 0, 2*len(t.due)), t.due...)
		t.open, t.sockets, t.datagrams, t.evicted = spare.Map(t.open), spare.Map(t.sockets), spare.Map(t.datagrams), nil
		t.buffers = buffers{} // it refers to exchanges that are over
	}
	if spare.TooLarge(t.peak.conns, len(t.conns)) {
		t.conns, t.clients, t.peak.conns = spare.Map(t.conns), spare.Map(t.clients), len(t.conns)
	}
	t.peak.open = len(t.due)
}
