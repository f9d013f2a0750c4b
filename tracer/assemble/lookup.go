package assemble

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// lookup is what is known of one query: its exchange, the server's record, or
// both. It may turn out to be the upstream leg of another.
type lookup struct {
	exchange *trace.Exchange
	query    *trace.Query
	again    int // further records of the same query
	key      question
	flow     trace.Flow
	added    time.Time
	due      time.Time
	index    int
	sequence uint64
}

// end is when the lookup was over: as its client saw it, else as its server did.
// Of an unanswered one it is the last thing seen of it.
func (l *lookup) end() time.Time {
	var last time.Time
	if l.query != nil {
		last = end(l.query.Time, l.query.Duration)
	}
	if l.exchange == nil {
		return last
	}
	at := end(l.exchange.Time, l.exchange.Duration)
	if n := len(l.exchange.Path); n > 0 && l.exchange.Duration == nil {
		at = at.Add(l.exchange.Path[n-1].Offset.Duration())
	}
	if at.After(last) {
		return at
	}
	return last
}

// readyAt returns when the lookup need not wait any longer.
func (l *lookup) readyAt(a *Assembler) time.Time {
	end := l.end()
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
	if a.claims(l) > 0 && a.now.Before(end.Add(maxClaimed)) {
		ready = later(ready, a.now.Add(settle))
	}
	return ready
}

func (l *lookup) readyWithoutRecord(a *Assembler, end time.Time) time.Time {
	ex := l.exchange
	switch {
	case ex.Outcome == trace.OutcomeAnswered:
		return end.Add(holdRecord)
	case ex.Drop != nil && ex.Drop.Message == trace.MessageQuery:
		// It died on the way to the server: there will be no record.
		return l.added.Add(settle)
	}
	return end.Add(a.unanswered())
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
	for i := range l.query.Upstreams {
		at := &l.query.Upstreams[i]
		if len(a.candidates(l, at)) > 0 {
			continue
		}
		if at.Outcome == trace.OutcomeOK {
			until = later(until, end.Add(holdRecord))
		} else {
			until = later(until, l.query.Time.Add(at.Start.Duration()+a.unanswered()))
		}
	}
	return until
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
