// Package assemble is the third step of the tracer: it joins exchanges and the
// plugin's query records into traces.
//
// It is a function of the records alone, without sockets and without a clock of
// its own, so that the live tracer and a file of records give the same traces.
package assemble

import (
	"container/heap"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// How long a lookup waits for a side that is missing.
const (
	// The exchanges and query records of one lookup and of those that compete
	// with it for an upstream exchange come within this time of its end: an
	// exchange closes 100 ms after its last packet, the plugin writes at least
	// that often.
	settle = 300 * time.Millisecond
	// What may be late: a batch of the plugin's on a busy node.
	holdRecord = time.Second
	// CoreDNS works on a query for at most 6 s (plugin/forward).
	holdServer = 7 * time.Second
	// A lookup that others claim as their upstream leg waits for them; this is
	// only in case that they wait for each other.
	maxClaimed = time.Minute
	// An exchange without a response is reported after the tracer's timeout.
	afterTimeout = 2 * time.Second
)

// DefaultMaxPending bounds the lookups held. One has some five kilobytes.
const DefaultMaxPending = 65536

// Config of an Assembler.
type Config struct {
	MaxPending int           // 0: DefaultMaxPending
	Timeout    time.Duration // after which exchanges are unanswered; 0: 5 s
}

// Stats counts what could not be joined as it should. All only grow, but for
// Pending.
type Stats struct {
	Pending int
	Evicted uint64 // passed on early, because too many were held
}

// Assembler joins records into traces. It is for one goroutine.
type Assembler struct {
	cfg        Config
	now        time.Time
	due        dueHeap
	byFlow     map[trace.Flow][]*lookup
	byQuestion map[question][]*lookup
	servers    *servers
	early      []*trace.Trace // evicted, until Advance
	unseen     int            // held without an exchange
	evicted    uint64
	sequence   uint64
}

type question struct {
	name, qtype, qclass string
}

// New returns an empty Assembler.
func New(cfg Config) *Assembler {
	if cfg.MaxPending == 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	return &Assembler{
		cfg: cfg, byFlow: map[trace.Flow][]*lookup{}, byQuestion: map[question][]*lookup{}, servers: newServers(),
	}
}

// Add takes the next record and owns it from then on. Order does not matter as
// long as a record is not later than the holds above.
func (a *Assembler) Add(r trace.Record) {
	switch r := r.(type) {
	case *trace.Exchange:
		a.advanceTo(end(r.Time, r.Duration))
		a.addExchange(r)
	case *trace.Query:
		a.advanceTo(end(r.Time, r.Duration))
		a.addQuery(r)
	}
}

func end(start time.Time, d *trace.Seconds) time.Time {
	if d == nil {
		return start
	}
	return start.Add(d.Duration())
}

func (a *Assembler) advanceTo(now time.Time) {
	if now.After(a.now) {
		a.now = now
	}
}

func (a *Assembler) addExchange(ex *trace.Exchange) {
	a.servers.learn(ex)
	for _, l := range a.byFlow[ex.Flow] {
		if l.exchange != nil && l.exchange.Time.Equal(ex.Time) {
			// Something of it came after it was reported: this is all of it.
			l.exchange = ex
			a.reschedule(l)
			return
		}
		if l.exchange == nil && l.query != nil && belongs(ex, l.query) {
			l.exchange = ex
			a.unseen--
			a.servers.records(ex)
			a.reschedule(l)
			return
		}
	}
	l := &lookup{exchange: ex, key: question{ex.QName, ex.QType, ex.QClass}, flow: ex.Flow}
	a.hold(l)
}

func (a *Assembler) addQuery(q *trace.Query) {
	for _, l := range a.byFlow[q.Flow] {
		if l.exchange == nil || !belongs(l.exchange, q) {
			continue
		}
		if l.query != nil {
			// A retransmission that reached the server too.
			l.again++
			return
		}
		l.query = q
		a.servers.records(l.exchange)
		a.reschedule(l)
		return
	}
	a.hold(&lookup{query: q, key: question{q.QName, q.QType, q.QClass}, flow: q.Flow})
}

// belongs tells whether a query record is of an exchange with the same flow: the
// flow is used again only when the client uses its port and ID again. The query
// starts after the first packet, or after a retransmission of it.
func belongs(ex *trace.Exchange, q *trace.Query) bool {
	const (
		clocks = 50 * time.Millisecond // of two nodes, synchronized as nodes are
		queue  = 6 * time.Second       // an overloaded server reads its socket late
	)
	at := q.Time.Sub(ex.Time)
	last := time.Duration(0)
	for _, s := range ex.Path {
		if s.Message == trace.MessageQuery {
			last = max(last, s.Offset.Duration())
		}
	}
	return at >= -clocks && at <= last+queue+clocks
}

func (a *Assembler) hold(l *lookup) {
	if len(a.due) >= a.cfg.MaxPending {
		a.evicted++
		a.early = append(a.early, a.finish(a.due[0]))
	}
	a.sequence++
	l.sequence = a.sequence
	l.added = a.now
	if l.exchange == nil {
		a.unseen++
	}
	l.due = l.readyAt(a)
	heap.Push(&a.due, l)
	a.byFlow[l.flow] = append(a.byFlow[l.flow], l)
	a.byQuestion[l.key] = append(a.byQuestion[l.key], l)
}

func (a *Assembler) reschedule(l *lookup) {
	l.due = l.readyAt(a)
	heap.Fix(&a.due, l.index)
}

// Advance returns the traces that are complete, or will not get more complete,
// at the given time. The caller owns them.
func (a *Assembler) Advance(now time.Time) []*trace.Trace {
	a.advanceTo(now)
	done := a.early
	a.early = nil
	for len(a.due) > 0 && !a.due[0].due.After(a.now) {
		l := a.due[0]
		if at := l.readyAt(a); at.After(a.now) {
			l.due = at
			heap.Fix(&a.due, 0)
			continue
		}
		done = append(done, a.finish(l))
	}
	return done
}

// Flush returns everything that is held, as it stands.
func (a *Assembler) Flush() []*trace.Trace {
	done := a.early
	a.early = nil
	// As if the time of each had come: a leg that may be claimed waits for its
	// claimants, as it would have.
	for len(a.due) > 0 {
		done = append(done, a.Advance(a.due[0].due)...)
	}
	return done
}

// Stats returns the counters.
func (a *Assembler) Stats() Stats {
	return Stats{Pending: len(a.due), Evicted: a.evicted}
}

// finish makes the trace of a lookup and of the upstream exchanges that belong
// to it, and forgets them all.
func (a *Assembler) finish(l *lookup) *trace.Trace {
	a.forget(l)
	return a.build(l)
}

func (a *Assembler) forget(l *lookup) {
	heap.Remove(&a.due, l.index)
	if l.exchange == nil {
		a.unseen--
	}
	a.byFlow[l.flow] = without(a.byFlow[l.flow], l)
	if len(a.byFlow[l.flow]) == 0 {
		delete(a.byFlow, l.flow)
	}
	a.byQuestion[l.key] = without(a.byQuestion[l.key], l)
	if len(a.byQuestion[l.key]) == 0 {
		delete(a.byQuestion, l.key)
	}
}

func without(list []*lookup, l *lookup) []*lookup {
	for i := range list {
		if list[i] == l {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// dueHeap orders lookups by when to look at them next.
type dueHeap []*lookup

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].sequence < h[j].sequence
	}
	return h[i].due.Before(h[j].due)
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	l := x.(*lookup)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}
