// Package assemble is the third step of the tracer: it joins exchanges and the
// plugin's query and refresh records into traces, and finds which traces are of
// one getaddrinfo call.
//
// Nothing is joined that could as well belong to another: the trace then says
// what cannot be told apart.
//
// It is a function of the records alone, without sockets and without a clock of
// its own, so that the live tracer and a file of records give the same traces.
package assemble

import (
	"container/heap"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/spare"
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
	// A node on which no server wrote a record for this long has none that does:
	// its lookups are not held for one, which would be most of the memory.
	noRecords = 30 * time.Second
	// Nor has one where none came for so many lookups that were answered settle
	// ago: a busy node need not wait for long to know.
	manyUnrecorded = 1000
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
	Lacks      Lacks
}

// Lacks is what this node's kernel does not tell, each as the gap of a trace that it
// concerns; empty: it tells.
type Lacks struct {
	Process   string // which process sent what left a socket of this node
	Reason    string // why a packet was dropped
	Unsampled string // the packets of lookups that are not in the sample
}

// Stats counts what could not be joined as it should. All only grow, but for
// Pending.
type Stats struct {
	Pending    int
	Evicted    uint64 // passed on early, as they stood, because too many were held
	Duplicates uint64 // records that came twice
}

// Assembler joins records into traces. It is for one goroutine.
type Assembler struct {
	cfg       Config
	now       time.Time
	due       dueHeap
	byFlow    map[trace.Flow][]*lookup
	questions map[question]*asked
	unused    spare.Of[asked]
	lookups   spare.Of[lookup]
	traces    spare.Of[trace.Trace]
	servers   *servers
	calls     *calls
	early     []*trace.Trace // evicted, until Advance
	began     time.Time      // of the first record
	recorded  bool           // a server wrote records
	// How many answered lookups had no record after settle, while there were none.
	unrecorded int
	stats      Stats
	sequence   uint64
	most       int       // held since shrink last looked
	shrunk     time.Time // when it last did
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
		cfg: cfg, byFlow: map[trace.Flow][]*lookup{}, questions: map[question]*asked{}, servers: newServers(), calls: newCalls(),
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
		a.recorded = true
		a.addQuery(r)
	case *trace.Refresh:
		a.advanceTo(r.Time.Add(refreshTime(r)))
		a.addRefresh(r)
	}
}

func end(start time.Time, d *trace.Seconds) time.Time {
	if d == nil {
		return start
	}
	return start.Add(d.Duration())
}

func (a *Assembler) advanceTo(now time.Time) {
	if a.began.IsZero() {
		a.began = now
	}
	if now.After(a.now) {
		a.now = now
	}
}

func (a *Assembler) addExchange(ex *trace.Exchange) {
	a.servers.learn(ex)
	for _, l := range a.byFlow[ex.Flow] {
		old := l.written(ex)
		switch {
		case old != nil:
			// Something of it came after it was reported, and this is all of it;
			// or it is the same once more.
			if !moreThan(ex, *old) {
				a.stats.Duplicates++
				return
			}
			a.change(l, func() { *old = ex })
			a.remember(l.exchange)
			return
		case l.exchange == nil && l.query != nil && belongs(ex, l.query):
			a.change(l, func() { l.exchange = ex })
			a.servers.records(ex)
			a.remember(ex)
			return
		case l.exchange != nil && l.far == nil && twoSides(l.exchange, ex):
			a.change(l, func() { l.setSides(ex) })
			a.remember(l.exchange)
			a.recordOf(l)
			return
		}
	}
	a.remember(ex)
	a.hold(lookup{exchange: ex, key: question{ex.QName, ex.QType, ex.QClass}, flow: ex.Flow})
}

// remember keeps a client's lookup, to find the others of its call. What servers
// ask on behalf of others makes no calls of its own.
func (a *Assembler) remember(ex *trace.Exchange) {
	if !a.servers.sends(ex) {
		a.calls.add(ex, a.now)
	}
}

func (a *Assembler) addQuery(q *trace.Query) {
	for _, l := range a.byFlow[q.Flow] {
		if l.query != nil && l.query.Time.Equal(q.Time) && l.query.SpanID == q.SpanID {
			a.stats.Duplicates++
			return
		}
	}
	for _, l := range a.byFlow[q.Flow] {
		if l.exchange == nil || !belongs(l.serverSide(), q) {
			continue
		}
		if l.query != nil {
			// A retransmission that reached the server too: it waits, to go with
			// the lookup.
			break
		}
		a.change(l, func() { l.query = q })
		a.servers.records(l.serverSide())
		return
	}
	a.hold(lookup{query: q, key: question{q.QName, q.QType, q.QClass}, flow: q.Flow})
}

// recordOf gives l the server's record, if that came when only the client's side
// was known, on another clock.
func (a *Assembler) recordOf(l *lookup) {
	for _, half := range a.byFlow[l.flow] {
		if l.query == nil && half.exchange == nil && half.query != nil && belongs(l.serverSide(), half.query) {
			a.unite(l, half, "")
			l.due = l.readyAt(a)
			heap.Fix(&a.due, l.heapIndex)
			return
		}
	}
}

func (a *Assembler) addRefresh(r *trace.Refresh) {
	for _, l := range a.byFlow[r.Flow] {
		if l.refresh != nil && l.refresh.Time.Equal(r.Time) {
			a.stats.Duplicates++
			return
		}
	}
	a.hold(lookup{refresh: r, key: question{r.QName, r.QType, r.QClass}, flow: r.Flow})
}

// change alters a lookup that is held.
func (a *Assembler) change(l *lookup, alter func()) {
	a.unindex(l)
	alter()
	a.index(l)
	l.due = l.readyAt(a)
	heap.Fix(&a.due, l.heapIndex)
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

func (a *Assembler) hold(held lookup) {
	if len(a.due) >= a.cfg.MaxPending {
		a.stats.Evicted++
		l := a.due[0]
		l.evicted = true
		a.early = append(a.early, a.finish(l))
	}
	l := a.lookups.Take()
	*l = held
	a.sequence++
	l.sequence = a.sequence
	l.added = a.now
	a.index(l)
	l.due = l.readyAt(a)
	heap.Push(&a.due, l)
	a.most = max(a.most, len(a.due))
	same := a.byFlow[l.flow]
	if same == nil {
		same = l.alone[:0]
	}
	a.byFlow[l.flow] = append(same, l)
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
	a.shrink()
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
	s := a.stats
	s.Pending = len(a.due)
	return s
}

// finish makes the trace of a lookup and of the upstream exchanges that belong
// to it, and forgets them all.
func (a *Assembler) finish(l *lookup) *trace.Trace {
	a.reunite(l)
	a.forget(l)
	t := a.build(l)
	a.lookups.Give(l)
	return t
}

func (a *Assembler) forget(l *lookup) {
	heap.Remove(&a.due, l.heapIndex)
	a.unindex(l)
	if same := without(a.byFlow[l.flow], l); len(same) == 0 {
		delete(a.byFlow, l.flow)
	} else {
		a.byFlow[l.flow] = same
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
