package exchange

import (
	"maps"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// The memory of exchanges that are over is used again, as collecting it as garbage
// would cost more than what is done with it. What a burst needed and nothing else
// does is let go of within two of these times.
const shrinkEvery = int64(30 * time.Second)

// smallTable is how many exchanges a table may be made for without it mattering
// that it is too large: they take some 100 KiB.
const smallTable = 1024

// maxSpare bounds what is kept to be used again: what ends in a round of a busy node.
const maxSpare = 1024

// spare keeps memory to be used again.
type spare[T any] struct {
	list []*T
	idle int // how many were not needed since trim
}

// take returns memory in which anything may be.
func (s *spare[T]) take() *T {
	last := len(s.list) - 1
	if last < 0 {
		return new(T)
	}
	x := s.list[last]
	s.list[last] = nil
	s.list = s.list[:last]
	s.idle = min(s.idle, last)
	return x
}

// give takes what nothing refers to any more.
func (s *spare[T]) give(x *T) {
	if len(s.list) < maxSpare {
		s.list = append(s.list, x)
	}
}

// trim lets go of what was not needed since the last time.
func (s *spare[T]) trim() {
	keep := len(s.list) - min(s.idle, len(s.list))
	list := make([]*T, keep)
	copy(list, s.list[:keep])
	s.list, s.idle = list, keep
}

// fresh returns memory for an exchange.
func (t *Table) fresh() *open {
	ex := t.unused.take()
	ex.emitted = t.records.take()
	ex.record.Path = t.paths.empty()
	return ex
}

// reuse keeps the memory of an exchange that nothing refers to any more.
func (t *Table) reuse(ex *open) {
	if ex.emitted != nil {
		t.giveBack(ex.emitted)
		ex.emitted = nil
	}
	t.unused.give(ex)
}

// giveBack keeps the memory of a record.
func (t *Table) giveBack(e *emitted) {
	t.paths.reuse(e.record.Path)
	*e = emitted{} // it must not keep what it refers to
	t.records.give(e)
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

// shrink lets go of the memory that only a burst needed: Go's maps and lists keep the
// size of the most that they held.
func (t *Table) shrink(now int64) {
	if now < t.peak.next {
		return
	}
	t.peak.next = now + shrinkEvery
	t.unused.trim()
	t.records.trim()
	t.paths.trim()
	t.lent = lent{before: t.lent.now}
	if cap(t.due) > 4*max(t.peak.open, smallTable) {
		t.due = append(make(dueHeap, 0, 2*len(t.due)), t.due...)
		t.open, t.datagrams, t.evicted = rebuilt(t.open), rebuilt(t.datagrams), nil
	}
	if t.peak.conns > 4*max(len(t.conns), smallTable) {
		t.conns, t.peak.conns = rebuilt(t.conns), len(t.conns)
	}
	t.peak.open = len(t.due)
}

// rebuilt returns a map in as much memory as it needs.
func rebuilt[K comparable, V any](m map[K]V) map[K]V {
	smaller := make(map[K]V, len(m))
	maps.Copy(smaller, m)
	return smaller
}
