package assemble

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// Reuse takes back the memory of a trace that nobody refers to any more; that of its
// exchanges is not the Assembler's. It is for the owner of the trace alone; to leave
// it to the garbage collector is never wrong.
func (a *Assembler) Reuse(t *trace.Trace) {
	*t = trace.Trace{} // it must not keep what it refers to
	a.traces.Give(t)
}

// shrink lets go of the memory that only a burst needed.
func (a *Assembler) shrink() {
	if a.now.Sub(a.shrunk) < spare.Every {
		return
	}
	a.shrunk = a.now
	a.unused.Trim()
	a.lookups.Trim()
	a.traces.Trim()
	if spare.TooLarge(cap(a.due), a.most) {
		a.due = append(make(dueHeap, 0, 2*len(a.due)), a.due...)
		a.byFlow, a.questions, a.early = spare.Map(a.byFlow), spare.Map(a.questions), nil
		for _, q := range a.questions {
			q.shrink()
		}
	}
	a.most = len(a.due)
	a.calls.shrink()
}

// shrink lets go of the memory of lookups that are over.
func (q *asked) shrink() {
	q.records = slices.Clone(q.records)
	q.placeless.shrink()
	for i := range q.sent {
		q.sent[i].timeline = slices.Clone(q.sent[i].timeline)
	}
	for i := range q.callers {
		q.callers[i].shrink()
	}
}

func (s *spans) shrink() {
	s.short, s.long = slices.Clone(s.short), slices.Clone(s.long)
}

func (c *calls) shrink() {
	c.unused.Trim()
	if spare.TooLarge(cap(c.order), c.most) {
		c.order, c.head = slices.Clone(c.order[c.head:]), 0
		c.byCaller = spare.Map(c.byCaller)
	}
	c.most = len(c.order) - c.head
}
