package assemble

import (
	"cmp"
	"slices"
)

// maxDepth bounds a chain of servers: node-local cache, cluster DNS, the
// network's resolver; what is deeper is a loop.
const maxDepth = 8

// maxTried bounds the lookups, or upstream queries, of one question that are looked at
// for one that belongs.
const maxTried = 64

// owner returns the lookup that an exchange is an upstream query of, or may turn out to
// be; nil if there is none yet.
func (a *Assembler) owner(x *lookup) *lookup {
	if x.slot == nil && x.position.channel != nil {
		if s := a.matchExchange(x); s != nil && x.slot == nil {
			return s.of
		}
	}
	if x.slot != nil {
		return x.slot.of
	}
	caller, _ := a.caller(x)
	return caller
}

// matchExchange finds the attempt that an exchange is of. It returns one that it may be
// of, if it is too early to tell.
func (a *Assembler) matchExchange(x *lookup) (early *slot) {
	if s := a.spans[x.stamp.SpanID]; s != nil && !x.stamp.SpanID.IsZero() {
		a.matchSlot(s)
		return nil
	}
	c, at := x.position.channel, x.position.at
	around := func(t timeline[*slot], do func(*slot) bool) bool {
		last := t.from(at+slack+1) - 1
		for i := last; i >= 0 && t[i].at >= at-c.longest-slack && i > last-maxPassed; i-- {
			if a.feasible(t[i].item, x) && do(t[i].item) {
				return true
			}
		}
		return false
	}
	around(c.slots, func(s *slot) bool {
		if s.final {
			return false
		}
		if a.now.Before(a.arrival(s)) {
			early = s
		} else {
			a.matchSlot(s)
		}
		return true
	})
	if early != nil || x.slot != nil {
		return early
	}
	// It may be what came before, or after, the exchange of an attempt that is over.
	var found *slot
	around(c.final, func(s *slot) bool {
		if s.takes(x) {
			if found != nil {
				found.exact = false // of this or the other
				return true
			}
			found = s
		}
		return false
	})
	if found != nil {
		found.give(x, found.exact && !x.contested)
	}
	return nil
}

// caller returns the lookup, of those whose server keeps no record, that an upstream
// query was sent for: the one of the same question that had come to the server last
// before, of those that it had not answered. others tells whether there was another.
func (a *Assembler) caller(x *lookup) (found *lookup, others bool) {
	q := x.position.asked
	if q == nil || !x.sender.seen {
		return nil, false
	}
	at := x.position.at
	first := q.callers.from(at + 1)
	for i := first - 1; i >= 0 && i >= first-maxTried; i-- {
		w := q.callers[i].item
		if found == nil && w.until < at {
			continue // as almost all of those that ask for a name again and again
		}
		l := w.of
		if found != nil && l.position.arrival != found.position.arrival && others {
			break
		}
		if l == x || l.until < at || !a.servers.sent(&l.server, &x.sender) {
			continue
		}
		if found == nil {
			found = l
			continue
		}
		others = true
		if l.position.arrival == found.position.arrival && slices.Compare(l.flow[:], found.flow[:]) < 0 {
			found = l
		}
	}
	return found, others
}

// gather gives l the upstream queries that belong to it, and these theirs.
func (a *Assembler) gather(l *lookup, depth int) {
	if depth >= maxDepth {
		return
	}
	a.match(l)
	var got []*lookup
	for _, s := range l.slots {
		if y := a.inside(s); y != nil {
			got = append(got, y)
		}
		if len(s.got) == 0 {
			continue
		}
		s.finalize(a)
		got = append(got, s.got...)
	}
	if l.recorded() {
		for _, x := range l.inferred {
			a.unindexExchange(x)
		}
		l.inferred = slices.DeleteFunc(l.inferred, func(x *lookup) bool { return x.slot != nil })
	} else {
		a.infer(l)
	}
	// All are known before any is taken.
	for _, x := range append(got, l.inferred...) {
		if x.parent == nil {
			a.forget(x)
			x.parent = l
			a.gather(x, depth+1)
		} else if l.root().again {
			a.gather(x, depth+1)
		}
	}
}

// infer finds the upstream queries of a lookup whose server keeps no record: of the same
// question, sent by the server while it had the query.
func (a *Assembler) infer(l *lookup) {
	p := l.position
	if !p.caller {
		return
	}
	before := len(l.inferred)
	for _, c := range p.asked.likely() {
		tried := 0
		for i := c.exchanges.from(p.arrival); i < len(c.exchanges) && c.exchanges[i].at <= l.until && tried < maxTried; i++ {
			x := c.exchanges[i].item
			if tried++; x == l || x.slot != nil || !a.servers.sent(&l.server, &x.sender) {
				continue
			}
			if len(c.slots) > 0 || !x.stamp.TraceID.IsZero() {
				if a.matchExchange(x); x.slot != nil {
					continue
				}
			}
			caller, others := a.caller(x)
			if caller != l {
				x.contested = true // it could be of l, which is over
				continue
			}
			l.inferred = append(l.inferred, x)
			tried = 0
			if others || x.contested {
				l.ambiguous++
			}
		}
	}
	if len(l.inferred) > before {
		slices.SortFunc(l.inferred, func(x, y *lookup) int {
			return cmp.Or(x.exchange.Time.Compare(y.exchange.Time), slices.Compare(x.flow[:], y.flow[:]), x.exchange.ServerIP.Compare(y.exchange.ServerIP))
		})
	}
}
