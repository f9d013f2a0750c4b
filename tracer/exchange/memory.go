package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// fresh returns memory for an exchange.
func (t *Table) fresh() *open {
	ex := t.unused.Take()
	ex.emitted = t.records.Take()
	ex.record.Path = t.paths.empty()
	return ex
}

// reuse keeps the memory of an exchange that nothing refers to any more.
func (t *Table) reuse(ex *open) {
	if ex.emitted != nil {
		t.giveBack(ex.emitted)
		ex.emitted = nil
	}
	t.unused.Give(ex)
}

// giveBack keeps the memory of a record.
func (t *Table) giveBack(e *emitted) {
	t.paths.reuse(e.record.Path)
	*e = emitted{} // it must not keep what it refers to
	t.records.Give(e)
}

// lent knows the records that were passed on, to know them again when they are given
// back. Some never are: they are forgotten with those of their time.
type lent struct{ now, before map[*trace.Exchange]*emitted }

func (l *lent) add(e *emitted) {
	if l.now == nil {
		l.now = map[*trace.Exchange]*emitted{}
	}
	l.now[&e.record] = e
}

// back returns the memory of a record, nil if it is not known.
func (l *lent) back(ex *trace.Exchange) *emitted {
	for _, records := range []map[*trace.Exchange]*emitted{l.now, l.before} {
		if e := records[ex]; e != nil {
			delete(records, ex)
			return e
		}
	}
	return nil
}

// Reuse takes back the memory of a record that nobody refers to any more: it may
// become that of another. It is for the owner of the record alone; to leave it to the
// garbage collector is never wrong.
func (t *Table) Reuse(ex *trace.Exchange) {
	if e := t.lent.back(ex); e != nil {
		t.giveBack(e)
		return
	}
	t.paths.reuse(ex.Path)
	ex.Path = nil
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
	t.unused.Trim()
	t.records.Trim()
	t.paths.trim()
	t.lent = lent{before: t.lent.now}
	if spare.TooLarge(cap(t.due), t.peak.open) {
		t.due = append(make(dueHeap, 0, 2*len(t.due)), t.due...)
		t.open, t.datagrams, t.evicted = spare.Map(t.open), spare.Map(t.datagrams), nil
	}
	if spare.TooLarge(t.peak.conns, len(t.conns)) {
		t.conns, t.peak.conns = spare.Map(t.conns), len(t.conns)
	}
	t.peak.open = len(t.due)
}
