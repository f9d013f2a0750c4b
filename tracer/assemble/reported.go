package assemble

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// What was passed on is remembered, as what is still to come of it replaces it: a late
// response, the record of a retransmission, an upstream query that nobody waited for.
const (
	// Of a lookup that was answered, and whose parts have all come, more is rare.
	rememberWhole = 3 * time.Second
	// CoreDNS works on a retransmission for 6 s, and the exchange with a late answer
	// comes up to 5 s after it was given up.
	rememberOther = 15 * time.Second
	// The server of one that was not answered may still be trying to connect.
	rememberOpen = holdDial + rememberOther
)

// pass remembers a lookup that was passed on.
func (a *Assembler) pass(l *lookup) {
	l.passed = a.now
	a.resizeTree(l)
	switch {
	case l.whole():
		a.passedWhole.push(l)
	case l.open():
		a.passedOpen.push(l)
	default:
		a.passedOther.push(l)
	}
	a.expire()
}

// open tells whether the server of a lookup may still be at work on it.
func (l *lookup) open() bool {
	ex := l.exchange
	return ex != nil && ex.Outcome == trace.OutcomeUnanswered && !ex.Connects() && l.query == nil
}

// whole tells whether nothing more of a lookup is expected.
func (l *lookup) whole() bool {
	ex := l.exchange
	if ex == nil || ex.Duration == nil || ex.Transmissions > 1 || len(l.inferred) > 0 {
		return false
	}
	for _, s := range l.slots {
		if len(s.got) == 0 && !s.dials() || len(s.got) > 0 && s.got[0].exchange.Protocol == "tcp" {
			return false // the connection may not be the first that was tried
		}
	}
	return true
}

// expire forgets what was passed on long ago, and what there is no room for: first of all
// queries that nobody answers, of which there may be any number.
func (a *Assembler) expire() {
	for _, q := range [...]struct {
		*queue
		keep time.Duration
	}{{&a.passedOpen, rememberOpen}, {&a.passedWhole, rememberWhole}, {&a.passedOther, rememberOther}} {
		for l := q.first; l != nil && (a.now.Sub(l.passed) > q.keep || a.passedSize() > a.cfg.MaxBytes/4); l = q.first {
			a.drop(l)
		}
	}
}

func (a *Assembler) passedSize() int {
	return a.passedOpen.size + a.passedWhole.size + a.passedOther.size
}

// drop forgets a lookup that was passed on, and all that was passed on with it.
func (a *Assembler) drop(l *lookup) {
	l.remove()
	l.eachOfTree(a.disown)
}

// disown takes a lookup out of all indexes.
func (a *Assembler) disown(l *lookup) {
	a.unindex(l)
	for _, s := range l.slots {
		a.unindexSlot(s)
	}
	a.flows.Leave(l)
}

// eachOfTree calls do for l and for all upstream queries that were passed on with it.
func (l *lookup) eachOfTree(do func(*lookup)) {
	for _, s := range l.slots {
		for _, x := range s.got {
			if x.parent == l {
				x.eachOfTree(do)
			}
		}
		if x := s.inner; x != nil && x.parent == l {
			x.eachOfTree(do)
		}
	}
	for _, x := range l.inferred {
		if x.parent == l && x.slot == nil {
			x.eachOfTree(do)
		}
	}
	do(l)
}

// resizeTree accounts l with all that is passed on with it.
func (a *Assembler) resizeTree(l *lookup) {
	bytes := 0
	l.eachOfTree(func(part *lookup) { bytes += part.bytes() })
	l.resize(bytes)
}

// revive holds a lookup again that was passed on, to pass it on once more.
func (a *Assembler) revive(l *lookup) {
	if l.heapIndex >= 0 {
		return
	}
	l.remove()
	l.again, l.added = true, a.now
	a.held.push(l)
	a.await(l, a.waits(l))
}

// bound passes on the oldest of what is held, where that is too much, and forgets first
// what was passed on.
//
// Strangers have a room of their own, so that they take none from others.
func (a *Assembler) bound() {
	for l := a.strangers.first; l != nil && a.strangers.size > a.cfg.MaxBytes/4; l = a.strangers.first {
		a.forget(l)
		a.refuse(l)
	}
	for a.held.size+a.passedSize() > a.cfg.MaxBytes {
		switch {
		case a.passedOpen.first != nil:
			a.drop(a.passedOpen.first)
		case a.passedWhole.first != nil:
			a.drop(a.passedWhole.first)
		case a.passedOther.first != nil:
			a.drop(a.passedOther.first)
		case a.held.first != nil:
			a.evict(a.held.first)
		default:
			return
		}
	}
}

// evict passes a lookup on as it stands, with the one that it is an upstream query of.
func (a *Assembler) evict(l *lookup) {
	for depth := 0; l.slot != nil && l.slot.of.heapIndex >= 0 && depth < maxDepth; depth++ {
		l = l.slot.of
	}
	a.stats.Evicted++
	l.evicted = true
	if a.finish(l) {
		a.early = append(a.early, a.trace)
	}
}

// shrink releases the memory that only a burst needed: maps and lists keep the size
// of the most that they ever held.
func (a *Assembler) shrink() {
	if a.now.Sub(a.shrunk) < freelist.Every {
		return
	}
	a.shrunk = a.now
	if freelist.TooLarge(cap(a.due), a.most) {
		a.due = append(make(agenda.Of[*lookup], 0, 2*len(a.due)), a.due...)
		a.flows.Resize()
		a.questions = freelist.Compact(a.questions)
	}
	a.most = len(a.due)
	a.calls.shrink()
}
