package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// Bounds of what is kept to be used again: what ends in a round of a busy node, and
// paths of ordinary length.
const (
	maxSpare      = 512
	maxSpareSteps = 32
)

// lists is the memory of an exchange's lists while it is open. Its record has copies
// that are no larger than they need to be.
type lists struct {
	path     trace.Path
	marks    []mark
	journeys []journey
}

// takeLists gives an exchange memory for its lists.
func (t *Table) takeLists(ex *open) {
	last := len(t.spare) - 1
	if last < 0 {
		// Half of what a lookup through a Service has: what is never answered is most where room is short.
		ex.path, ex.marks, ex.journeys = trace.MakePath(4, 2, 2), make([]mark, 0, 4), make([]journey, 0, 2)
		return
	}
	l := &t.spare[last]
	ex.path, ex.marks, ex.journeys = l.path, l.marks, l.journeys
	*l = lists{}
	t.spare = t.spare[:last]
	t.idle = min(t.idle, last)
}

// giveLists takes the memory of an exchange that is over.
func (t *Table) giveLists(ex *open) {
	if len(t.spare) < maxSpare && ex.path.Len() <= maxSpareSteps && len(ex.journeys) <= maxSpareSteps {
		ex.path.Reset()
		t.spare = append(t.spare, lists{ex.path, ex.marks[:0], ex.journeys[:0]})
	}
	ex.path, ex.marks, ex.journeys = trace.Path{}, nil, nil
}

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
	t.spare = append([]lists(nil), t.spare[min(t.idle, len(t.spare)):]...)
	t.idle = len(t.spare)
	if spare.TooLarge(cap(t.due), t.peak.open) {
		t.due = append(make(dueHeap, 0, 2*len(t.due)), t.due...)
		t.open, t.waiting, t.datagrams, t.evicted = spare.Map(t.open), spare.Map(t.waiting), spare.Map(t.datagrams), nil
		t.sockets.newest, t.alike.newest, t.kin.newest = spare.Map(t.sockets.newest), spare.Map(t.alike.newest), spare.Map(t.kin.newest)
		t.buffers = buffers{} // it refers to exchanges that are over
	}
	if spare.TooLarge(t.peak.conns, len(t.conns)) {
		t.conns, t.clients, t.peak.conns = spare.Map(t.conns), spare.Map(t.clients), len(t.conns)
	}
	t.peak.open = len(t.due)
}
