package assemble

import (
	"cmp"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/chain"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// lookup is what is known of one query: its exchange, the server's record, or
// both; or the work in the background that a query set off. It may turn out to
// be an upstream query of another.
type lookup struct {
	exchange       *trace.Exchange // as the client's node saw it, or the only node that did
	serverExchange *trace.Exchange // as the server's node saw it, where that is another
	query          *trace.Query    // the first of records
	records        []*trace.Query  // in order of time; more than one where a retransmission reached the server too
	refresh        *trace.Refresh  // without exchange and query
	from           *peer.Process   // of records, or refresh; nil: of a file, or there is none
	claim          *trace.Query    // a record that may be anybody's; nothing follows from it
	admitted       bool            // slots are those of records, or refresh: the sender is believed
	slots          []*slot         // of the attempts in records or refresh

	matched string // how the record was found, unless by its flow
	evicted bool
	again   bool // it was passed on before, or something of it was
	lost    bool // what that was is not remembered
	// It was answered so long ago that most records would have come, and has none.
	unrecorded bool

	question question
	flow     trace.Flow
	position position
	server   identity
	sender   sender            // of its exchange
	caller   *recent           // among whose lookups it is remembered; nil: it is not
	stamp    trace.Traceparent // in its exchange
	answered int64             // when its response had arrived; the end of time if it did not
	until    int64             // when the server's work on it was over, if it keeps no records

	slot      *slot     // of the attempt that its exchange is
	contested bool      // an attempt that is over could have been it
	parent    *lookup   // whose upstream query it is
	inferred  []*lookup // upstream queries of a server that keeps no record
	ambiguous int       // of these, how many another could have caused

	sameFlow  chain.Links[lookup]
	size      int // bytes that it is accounted with
	added     time.Time
	claimed   time.Time // since when it waits for the lookup that it is an upstream query of
	passed    time.Time // when it was passed on
	due       time.Time
	heapIndex int // -1: not held
	list      *queue
	before    *lookup // in list
	after     *lookup
}

// serverSide returns the exchange as it was seen closest to the server.
func (l *lookup) serverSide() *trace.Exchange {
	if l.serverExchange != nil {
		return l.serverExchange
	}
	return l.exchange
}

// recorded tells whether the server's own record says what it sent upstream.
func (l *lookup) recorded() bool { return l.query != nil || l.refresh != nil }

// root returns the lookup with which l is passed on: itself, unless it is an upstream
// query.
func (l *lookup) root() *lookup {
	for l.parent != nil {
		l = l.parent
	}
	return l
}

// depth returns how many servers are before l in its chain, as far as that matters.
func (l *lookup) depth() (n int) {
	for ; l.parent != nil && n < maxDepth; l = l.parent {
		n++
	}
	return n
}

// addRecord gives l a record of its query, of the process that sent the others.
func (a *Assembler) addRecord(l *lookup, q *trace.Query, from *peer.Process) {
	l.from = from
	i, _ := slices.BinarySearchFunc(l.records, q.Time, func(r *trace.Query, at time.Time) int { return r.Time.Compare(at) })
	l.records = slices.Insert(l.records, i, q)
	l.query = l.records[0]
	if l.admitted && !q.Unverified {
		a.addSlots(l, q)
	}
	a.join(l)
	if len(l.records) > 1 {
		// Its server works on a repeated query while it still does on the first.
		slices.SortStableFunc(l.slots, func(x, y *slot) int { return cmp.Compare(x.begin, y.begin) })
	}
}

// join uses the records of l if they are of the server of its exchange, or of a known server.
func (a *Assembler) join(l *lookup) {
	in := l.serverSide()
	if in == nil && !a.believes(l) {
		return
	}
	a.admit(l)
	if in == nil {
		return
	}
	a.recorded = true
	for _, q := range l.records {
		a.servers.records(in, q)
	}
}

// end is when the lookup was over: as its client saw it, else as its server did.
// Of an unanswered one it is the last thing seen of it.
func (l *lookup) end() time.Time {
	var last time.Time
	for _, q := range l.records {
		last = later(last, end(q.Time, q.Duration))
	}
	if l.refresh != nil {
		last = l.refresh.Time.Add(refreshTime(l.refresh))
	}
	if l.exchange == nil {
		return last
	}
	ex := l.exchange
	if ex.Duration != nil {
		return later(end(ex.Time, ex.Duration), last)
	}
	last = later(last, ex.Time)
	if n := ex.Path.Len(); n > 0 {
		last = later(last, ex.Time.Add(ex.Path.At(n-1).Offset.Duration()))
	}
	if d := ex.LastDrop(); d != nil {
		last = later(last, ex.Time.Add(d.Offset.Duration()))
	}
	return last
}

// refreshTime is how long work in the background took; the record's own duration
// is that of the query which set it off.
func refreshTime(r *trace.Refresh) time.Duration {
	var last time.Duration
	for i := range r.Hops {
		if h := &r.Hops[i]; h.Duration != nil {
			last = max(last, h.Start.Duration()+h.Duration.Duration())
		}
	}
	for i := range r.Upstreams {
		at := &r.Upstreams[i]
		if at.Duration == nil {
			last = max(last, at.Start.Duration()+holdServer)
			continue
		}
		last = max(last, at.Start.Duration()+at.Duration.Duration())
	}
	return last
}

func end(start time.Time, d *trace.Seconds) time.Time {
	if d == nil {
		return start
	}
	return start.Add(d.Duration())
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func without[T comparable](list []T, item T) []T {
	if i := slices.Index(list, item); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
