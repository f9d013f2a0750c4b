package assemble

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// lookup is what is known of one query: its exchange, the server's record, or
// both; or the work in the background that a query set off. It may turn out to
// be the upstream leg of another.
type lookup struct {
	exchange *trace.Exchange // as the client's node saw it, or the only node that did
	far      *trace.Exchange // as the server's node saw it, where that is another
	query    *trace.Query
	refresh  *trace.Refresh // without exchange and query

	matched string // how the record was found, unless by its flow
	evicted bool
	// It was answered so long ago that most records would have come, and has none.
	unrecorded bool
	// How many lookups that were passed on it could have been a leg of, among
	// others: it stays nobody's.
	contested int

	key       question
	asked     *asked // while it is in the index
	flow      trace.Flow
	alone     [1]*lookup // room for the list of those of its flow: most are one
	position  position
	added     time.Time
	due       time.Time
	heapIndex int
	sequence  uint64
}

// serverSide returns the exchange as it was seen closest to the server.
func (l *lookup) serverSide() *trace.Exchange {
	if l.far != nil {
		return l.far
	}
	return l.exchange
}

// arrival returns the namespace in which the query came to its server; false if
// that was not seen.
func (l *lookup) arrival() (netns uint32, seen bool) {
	if ex := l.serverSide(); ex != nil {
		return arrivedAt(ex)
	}
	return 0, false
}

// attempts returns what the server's record says of upstream queries, and the
// time from which their starts count.
func (l *lookup) attempts() (time.Time, []trace.Attempt) {
	switch {
	case l.query != nil:
		return l.query.Time, l.query.Upstreams
	case l.refresh != nil:
		return l.refresh.Time, l.refresh.Upstreams
	}
	return time.Time{}, nil
}

// recorded tells whether the server's own record says what it sent upstream.
func (l *lookup) recorded() bool { return l.query != nil || l.refresh != nil }

// mayCall tells whether upstream exchanges may belong to the lookup.
func (l *lookup) mayCall() bool {
	if l.recorded() {
		_, attempts := l.attempts()
		return len(attempts) > 0
	}
	_, seen := l.arrival()
	return seen
}

// calling returns from when and for how long the lookup may have sent upstream
// queries.
func (l *lookup) calling(a *Assembler) (start time.Time, span time.Duration) {
	if !l.recorded() {
		ex := l.serverSide()
		if _, left := serverTime(ex); left != 0 {
			return ex.Time, left
		}
		return ex.Time, holdServer
	}
	start, attempts := l.attempts()
	for i := range attempts {
		_, over := attemptTime(start, &attempts[i])
		span = max(span, over.Sub(start))
	}
	return start, span
}

// repeats returns the lookups that are further records of l's query: of
// retransmissions, which reached the server too.
func (a *Assembler) repeats(l *lookup) []*lookup {
	if l.exchange == nil || l.query == nil {
		return nil
	}
	var found []*lookup
	for _, other := range a.byFlow[l.flow] {
		if other != l && other.exchange == nil && other.query != nil && belongs(l.serverSide(), other.query) {
			found = append(found, other)
		}
	}
	return found
}

// end is when the lookup was over: as its client saw it, else as its server did.
// Of an unanswered one it is the last thing seen of it.
func (l *lookup) end() time.Time {
	var last time.Time
	if l.query != nil {
		last = end(l.query.Time, l.query.Duration)
	}
	if l.refresh != nil {
		last = l.refresh.Time.Add(refreshTime(l.refresh))
	}
	if l.exchange == nil {
		return last
	}
	at := end(l.exchange.Time, l.exchange.Duration)
	if n := len(l.exchange.Path); n > 0 && l.exchange.Duration == nil {
		at = at.Add(l.exchange.Path[n-1].Offset.Duration())
	}
	return later(at, last)
}

// readyAt returns when the lookup need not wait any longer.
func (l *lookup) readyAt(a *Assembler) time.Time {
	end := l.end()
	if l.refresh != nil {
		ready := end.Add(settle)
		if a.now.Before(ready) {
			return ready
		}
		return later(ready, l.legsExpected(a, end))
	}
	if l.exchange == nil {
		// The exchange comes after its timeout at the latest.
		return end.Add(a.unanswered())
	}
	var ready time.Time
	switch {
	case a.servers.sends(l.exchange):
		// It may be the upstream leg of a lookup that is not over.
		ready = end.Add(a.unanswered())
	case l.query == nil:
		ready = l.readyWithoutRecord(a, end)
	default:
		ready = end.Add(settle)
	}
	if a.now.Before(ready) {
		return ready
	}
	if l.query != nil {
		ready = later(ready, l.legsExpected(a, end))
	}
	for _, repeat := range a.repeats(l) {
		over := repeat.end()
		ready = later(ready, later(over.Add(settle), repeat.legsExpected(a, over)))
	}
	if a.now.Before(end.Add(maxClaimed)) && a.claims(l, 1) > 0 {
		ready = later(ready, a.now.Add(settle))
	}
	return ready
}

func (l *lookup) readyWithoutRecord(a *Assembler, end time.Time) time.Time {
	ex := l.exchange
	switch {
	case ex.Connects():
		return l.added.Add(settle) // there is nothing to record
	case ex.Outcome == trace.OutcomeAnswered:
		return l.readyAnswered(a, end)
	case ex.Drop != nil && ex.Drop.Message == trace.MessageQuery:
		// It died on the way to the server: there will be no record. But what left
		// the same socket with it, and shows why, is to be passed on before.
		return l.added.Add(holdRecord + settle)
	}
	return end.Add(a.unanswered())
}

// readyAnswered returns how long an answered lookup waits for its server's record:
// for those of a batch that comes late, unless there are no records here.
func (l *lookup) readyAnswered(a *Assembler, end time.Time) time.Time {
	soon := end.Add(settle)
	if a.recorded {
		return end.Add(holdRecord)
	}
	if !a.now.Before(soon) && !l.unrecorded {
		l.unrecorded = true
		a.unrecorded++
	}
	if end.Sub(a.began) > noRecords || a.unrecorded > manyUnrecorded {
		return soon
	}
	if a.now.Before(soon) {
		return soon // to be counted
	}
	return end.Add(holdRecord)
}

// unanswered is how long what a silent server leaves behind may take.
func (a *Assembler) unanswered() time.Duration {
	return max(holdServer, a.cfg.Timeout+afterTimeout)
}

// legsExpected returns when to stop waiting for upstream exchanges that the
// query record lets expect: soon for one that was answered, after its timeout
// for one that was not.
func (l *lookup) legsExpected(a *Assembler, end time.Time) time.Time {
	var until time.Time
	start, attempts := l.attempts()
	for i := range attempts {
		at := &attempts[i]
		if len(a.candidates(l, at, 1)) > 0 {
			continue
		}
		if at.Outcome == trace.OutcomeOK {
			until = later(until, end.Add(holdRecord))
		} else {
			until = later(until, start.Add(at.Start.Duration()+a.unanswered()))
		}
	}
	return until
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
		_, over := attemptTime(r.Time, &r.Upstreams[i])
		last = max(last, over.Sub(r.Time))
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
