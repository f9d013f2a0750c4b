package assemble

import (
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// question is what an upstream exchange has in common with the lookup that
// caused it.
type question struct {
	name, qtype, qclass string
}

// asked indexes the lookups of one question by place and time, so that the
// search for the parts of one does not go through all the others of a name that
// everybody asks for.
type asked struct {
	sent      []sentFrom  // exchanges, by the namespace in which they began
	callers   []arrivedIn // lookups that may have upstream legs, by their server's namespace
	placeless spans       // likewise, but where the server is was not seen
	records   timeline    // queries of which only the server's record is known
	lookups   int
}

type sentFrom struct {
	netns uint32
	timeline
}

type arrivedIn struct {
	netns uint32
	spans
}

// position is where a lookup stands in the index.
type position struct {
	leg     bool // in sent
	sent    uint32
	record  bool // in records
	at      time.Time
	caller  bool // in callers or, without a place, in placeless
	placed  bool
	arrived uint32
	start   time.Time
	span    time.Duration
}

// index enters a lookup; whoever changes it takes it out before and enters it
// again after.
func (a *Assembler) index(l *lookup) {
	q := a.questions[l.key]
	if q == nil {
		q = a.unused.Take()
		a.questions[l.key] = q
	}
	q.lookups++
	l.asked = q
	var p position
	if ex := l.exchange; ex != nil && len(ex.Path) > 0 && ex.Path[0].Direction == trace.DirectionTX {
		p.leg, p.sent, p.at = true, ex.Path[0].NetNS, ex.Time
		q.sentFrom(p.sent).insert(p.at, l)
	}
	if l.exchange == nil && l.query != nil {
		p.record, p.at = true, l.query.Time
		q.records.insert(p.at, l)
	}
	if l.mayCall() {
		p.caller = true
		p.arrived, p.placed = l.arrival()
		p.start, p.span = l.calling(a)
		q.callersAt(p.placed, p.arrived).insert(l, p.start, p.span)
	}
	l.position = p
}

func (a *Assembler) unindex(l *lookup) {
	q, p := l.asked, l.position
	if p.leg {
		q.sentFrom(p.sent).remove(p.at, l)
	}
	if p.record {
		q.records.remove(p.at, l)
	}
	if p.caller {
		q.callersAt(p.placed, p.arrived).remove(l, p.start, p.span)
	}
	l.position, l.asked = position{}, nil
	if q.lookups--; q.lookups == 0 {
		delete(a.questions, l.key)
		a.reuse(q)
	}
}

// reuse keeps the memory of a question that nobody asks any more: where names are not
// asked twice, there is one a lookup. What many had asked in many places is not kept.
func (a *Assembler) reuse(q *asked) {
	if cap(q.sent) <= 4 && cap(q.callers) <= 4 && q.room() <= 64 {
		q.sent, q.callers = q.sent[:0], q.callers[:0]
		a.unused.Give(q)
	}
}

// room counts the lookups that there is memory for.
func (q *asked) room() int {
	n := cap(q.records) + cap(q.placeless.short) + cap(q.placeless.long)
	for _, s := range q.sent {
		n += cap(s.timeline)
	}
	for _, c := range q.callers {
		n += cap(c.short) + cap(c.long)
	}
	return n
}

func (q *asked) sentFrom(netns uint32) *timeline {
	for i := range q.sent {
		if q.sent[i].netns == netns {
			return &q.sent[i].timeline
		}
	}
	// What was there before, in a question that is used again, is empty.
	q.sent = slices.Grow(q.sent, 1)[:len(q.sent)+1]
	last := &q.sent[len(q.sent)-1]
	last.netns = netns
	return &last.timeline
}

func (q *asked) callersAt(placed bool, netns uint32) *spans {
	if !placed {
		return &q.placeless
	}
	for i := range q.callers {
		if q.callers[i].netns == netns {
			return &q.callers[i].spans
		}
	}
	q.callers = slices.Grow(q.callers, 1)[:len(q.callers)+1]
	last := &q.callers[len(q.callers)-1]
	last.netns = netns
	return &last.spans
}

// sameQuestion returns the lookups of l's question, nil if there are none; l itself
// may have been forgotten.
func (a *Assembler) sameQuestion(l *lookup) *asked {
	if l.asked != nil {
		return l.asked
	}
	return a.questions[l.key]
}

// legsOf calls each for the exchanges that began in a time where the server of l
// is, until it returns false.
func (a *Assembler) legsOf(l *lookup, from, to time.Time, each func(*lookup) bool) {
	q := a.sameQuestion(l)
	if q == nil {
		return
	}
	netns, placed := l.arrival()
	for i := range q.sent {
		if placed && q.sent[i].netns != netns {
			continue
		}
		if !q.sent[i].between(from, to, each) {
			return
		}
	}
}

// callersOf calls each for the lookups that may have caused an exchange, until
// it returns false.
func (a *Assembler) callersOf(leg *lookup, each func(*lookup) bool) {
	q := a.sameQuestion(leg)
	if q == nil {
		return
	}
	at := leg.exchange.Time
	if path := leg.exchange.Path; len(path) > 0 {
		for i := range q.callers {
			if q.callers[i].netns == path[0].NetNS && !q.callers[i].around(at, each) {
				return
			}
		}
	}
	q.placeless.around(at, each)
}
