package assemble

import (
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

const (
	// goesOnWithin is how long a client has to go on with its call before it counts as
	// stopped: a resolver does so within milliseconds, a busy machine delays it.
	goesOnWithin = time.Second
	// lookAgain is how often that is checked: less than linger, so that what goes on with a
	// lookup is passed on after it.
	lookAgain = 100 * time.Millisecond
)

// nextReady returns until when l waits to see whether its client goes on with its call.
func (a *Assembler) nextReady(l *lookup) time.Time {
	ready := a.over(l).Add(goesOnWithin)
	if !a.now.Before(ready) || !a.noUse(l) || a.goneOn(l) {
		return time.Time{}
	}
	if next := a.now.Add(lookAgain); next.Before(ready) {
		return next
	}
	return ready
}

// noUse tells whether a client got an answer with which a resolver goes on: truncated over
// UDP, or SERVFAIL for a name of a search list.
func (a *Assembler) noUse(l *lookup) bool {
	ex := l.exchange
	if ex == nil || ex.Outcome != trace.OutcomeAnswered || !ex.AtClient() || a.servers.sends(&l.sender) {
		return false
	}
	return ex.Truncated && ex.Protocol == "udp" || ex.RCode == "SERVFAIL" && a.calls.searches(ex)
}

// stopped tells whether it is known that the client of l did not go on.
func (a *Assembler) stopped(l *lookup) bool {
	over := a.over(l)
	seen := a.now
	if !a.flushed.IsZero() {
		seen = a.flushed
	}
	// Another lookup of the client may be outside the sample.
	whole := !l.evicted && l.exchange != nil && !l.exchange.SampledInKernel && l.exchange.LostEvents == 0
	return whole && a.noUse(l) && seen.Sub(over) >= goesOnWithin &&
		(a.cfg.Open == nil || a.cfg.Open.AllReported(over)) && !a.goneOn(l)
}

func (a *Assembler) over(l *lookup) time.Time {
	if l.exchange == nil {
		return time.Time{}
	}
	return end(l.exchange.Time, l.exchange.Duration)
}

// goneOn tells whether an exchange that is under way or held shows that the client of l went
// on with its call. What was passed on before is not considered.
func (a *Assembler) goneOn(l *lookup) bool {
	ex, over := l.exchange, a.over(l)
	if a.cfg.Open != nil {
		for _, next := range a.cfg.Open.Kin(ex, ex.Time.Add(-time.Duration(oneSocket)), over.Add(goesOnWithin)) {
			if goesOnFrom(ex, over, next) {
				return true
			}
		}
	}
	if !ex.Truncated {
		return a.calls.searchedOn(ex)
	}
	for _, q := range [...]question{l.question, {}} {
		at := a.questions[q]
		if at == nil {
			continue
		}
		for _, c := range at.likely() {
			for _, e := range c.exchanges[c.exchanges.from(ex.Time.UnixNano()):] {
				if e.at > over.Add(goesOnWithin).UnixNano() {
					break
				}
				if e.item != l && e.item.sender.ip == l.sender.ip && e.item.sender.place == l.sender.place && goesOnFrom(ex, over, e.item.exchange) {
					return true
				}
			}
		}
	}
	return false
}

// goesOnFrom tells whether a client may have begun next because of the answer to ex, or
// without the need of it.
func goesOnFrom(ex *trace.Exchange, over time.Time, next *trace.Exchange) bool {
	if next.Time.Equal(ex.Time) && next.ClientPort == ex.ClientPort && next.ID == ex.ID && next.QType == ex.QType {
		return false // itself
	}
	after := !next.Time.Before(over)
	if !ex.Truncated {
		waits := next.QName == ex.QName && next.Outcome != trace.OutcomeAnswered
		return waits || after && next.QName != ex.QName
	}
	switch {
	case next.Connects():
		return after
	case next.QName != ex.QName || next.QType != ex.QType:
		return false
	case next.Protocol == "tcp":
		return after
	}
	// The same, of another server that answers in whole; or again, for a larger answer.
	return next.ID == ex.ID && !next.Truncated || after && next.BufSize > ex.BufSize
}

// searches tells whether a lookup is of a search list that its caller goes through: it asked
// for another name that begins alike just before, which does not exist.
func (c *calls) searches(ex *trace.Exchange) bool {
	return slices.ContainsFunc(c.alike(ex), func(a asking) bool {
		since := ex.Time.UnixNano() - a.end
		return a.name != ex.QName && a.failed && since >= 0 && since <= goesOn
	})
}

// searchedOn tells whether its caller asked for another name that begins alike after a
// lookup, or waits for the other address type of this one.
func (c *calls) searchedOn(ex *trace.Exchange) bool {
	over := end(ex.Time, ex.Duration).UnixNano()
	return slices.ContainsFunc(c.alike(ex), func(a asking) bool {
		if a.name == ex.QName {
			return !a.answered && a.start >= ex.Time.UnixNano()-oneSocket && a.start <= over
		}
		return a.start >= over && a.start-over <= int64(goesOnWithin)
	})
}

// alike returns what the caller of a lookup asked for that begins like its name.
func (c *calls) alike(ex *trace.Exchange) []asking {
	if r := c.byCaller[callerOf(ex)]; r != nil {
		return r.list
	}
	return nil
}
