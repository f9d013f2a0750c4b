package assemble

import (
	"math"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// How long a lookup waits for a side that is missing.
const (
	// The exchanges and query records of one lookup and of those that compete
	// with it for an upstream exchange come within this time of its end: an
	// exchange closes 100 ms after its last packet, the plugin writes at least
	// that often.
	linger = 300 * time.Millisecond
	// What may be late: a batch of the plugin's on a busy node.
	holdRecord = time.Second
	// Where no server wrote a record for this long, lookups are not held for one: that would
	// take most of the memory.
	noRecords = 30 * time.Second
	// Likewise where so many lookups that were answered a while ago have no record: a busy
	// node knows soon.
	manyUnrecorded = 1000
	// CoreDNS works on a query for at most 6 s (plugin/forward), unless it has to connect:
	// the first attempts to do so last up to 30 s (plugin/pkg/proxy).
	holdServer = 7 * time.Second
	holdDial   = 31 * time.Second
	// An upstream query waits for its lookup; this bounds the case that they wait for each
	// other.
	maxClaimed = time.Minute
	// An exchange without a response is reported a second after the tracer's timeout.
	afterTimeout = 2 * time.Second
)

// unanswered is how long after its last query an exchange without a response has come.
func (a *Assembler) unanswered() time.Duration {
	return max(holdServer, a.cfg.Timeout+afterTimeout)
}

// readyAt returns when the lookup need not wait any longer, as of now: it is asked again at
// that time.
func (a *Assembler) readyAt(l *lookup) time.Time {
	ready := a.waits(l)
	if a.now.Before(ready) {
		return ready
	}
	ready = later(ready, a.treeReady(l, 0))
	if l.exchange == nil {
		if s := l.slot; s != nil && s.inner == l && s.of.root().heapIndex >= 0 && a.now.Sub(l.added) <= maxClaimed {
			ready = later(ready, later(s.of.root().due, a.now.Add(linger))) // which takes it
		}
		if a.cfg.Open != nil && l.query != nil && a.cfg.Open.UnderWay(l.query) {
			ready = later(ready, a.now.Add(linger))
		}
		return ready
	}
	ready = later(ready, a.nextReady(l))
	if l.claimed.IsZero() {
		l.claimed = a.now
	} else if a.now.Sub(l.claimed) > maxClaimed {
		return ready
	}
	switch owner := a.owner(l); {
	case owner != nil && owner.heapIndex >= 0:
		ready = later(ready, later(owner.due, a.now.Add(linger)))
	case owner != nil && owner.depth() < maxDepth:
		a.revive(owner.root()) // which takes it
		ready = later(ready, a.now.Add(2*linger))
	case a.servers.sends(&l.sender):
		// What it is for may not be over.
		ready = later(ready, later(l.end(), l.added).Add(a.unanswered()))
		if ex := l.exchange; ex.Connects() && ex.Duration == nil && ex.Reset == nil && ex.ICMP == nil {
			ready = later(ready, ex.Time.Add(holdDial+holdRecord))
		}
	}
	return ready
}

// waits returns how long l waits for its own parts.
func (a *Assembler) waits(l *lookup) time.Time {
	end := l.end()
	switch {
	case l.again:
		return l.added.Add(linger)
	case l.refresh != nil:
		return end.Add(linger)
	case l.exchange == nil:
		// The exchange comes after its timeout at the latest.
		return a.lastRecord(l, end).Add(a.unanswered())
	case l.query != nil && l.exchange.Outcome == trace.OutcomeDropped:
		// What left the same socket with it, and shows why, is to be passed on before.
		return later(end, l.added).Add(holdRecord + linger)
	case l.query != nil:
		return end.Add(linger)
	case a.servers.sends(&l.sender):
		return later(end, l.added).Add(linger)
	}
	return a.waitsForRecord(l, end)
}

// lastRecord returns the end of the last record of the same query as l, whose exchange has
// not come: while a client retransmits it, its exchange goes on.
func (a *Assembler) lastRecord(l *lookup, last time.Time) time.Time {
	for again := l.query != nil; again; {
		again = false
		for half := range a.flows.of(l.flow) {
			if half == l || half.exchange != nil || half.query == nil || !fitsRecord(half, l) {
				continue
			}
			if end := half.end(); end.After(last) && half.query.Time.Sub(last) <= holdServer {
				last, again = end, true
			}
		}
	}
	return last
}

func (a *Assembler) waitsForRecord(l *lookup, end time.Time) time.Time {
	ex := l.exchange
	switch {
	case ex.Connects():
		return l.added.Add(linger) // there is nothing to record
	case ex.Outcome == trace.OutcomeAnswered:
		return a.waitsAnswered(l, end)
	case dropped(ex):
		// It was lost on the way to the server: there will be no record. But what left the
		// same socket with it, and shows why, is to be passed on before.
		return l.added.Add(holdRecord + linger)
	}
	return end.Add(a.unanswered())
}

// waitsAnswered returns until when an answered lookup waits for its server's record: long
// enough for a late batch, but only linger where no server writes records.
func (a *Assembler) waitsAnswered(l *lookup, end time.Time) time.Time {
	soon := end.Add(linger)
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

// treeReady returns when to stop waiting for upstream exchanges that records let
// expect, and for what belongs to those that have come.
func (a *Assembler) treeReady(l *lookup, depth int) time.Time {
	var ready time.Time
	if depth >= maxDepth {
		return ready
	}
	for _, s := range l.slots {
		if arrival := a.arrival(s); s.channel != nil && !s.final && a.now.Before(arrival) && !a.refused(s) {
			ready = later(ready, arrival)
			continue
		}
		a.matchSlot(s)
		for _, x := range s.got {
			ready = later(ready, a.upstreamReady(x, depth+1))
		}
		if y := a.inside(s); y != nil {
			ready = later(ready, a.upstreamReady(y, depth+1))
			continue
		}
		if len(s.got) == 0 && s.at.Outcome == trace.OutcomeOK && !s.dials() && (s.channel != nil || !s.span.IsZero()) {
			ready = later(ready, l.end().Add(holdRecord))
			if a.rejects(s) {
				ready = later(ready, a.now.Add(linger))
			}
		}
	}
	if l.exchange != nil && !l.recorded() {
		ready = later(ready, a.inferredReady(l, depth))
	}
	return ready
}

// inferredReady returns when to stop waiting for what belongs to the upstream queries of a
// lookup whose server keeps no record, as that of a proxy.
func (a *Assembler) inferredReady(l *lookup, depth int) (ready time.Time) {
	p := l.position
	if !p.caller {
		return ready
	}
	if in := l.serverSide(); a.cfg.Open != nil &&
		a.cfg.Open.Asking(l.server.place, l.server.pid, in.QName, in.QType, time.Unix(0, p.arrival), time.Unix(0, min(l.until, a.now.UnixNano()))) {
		ready = a.now.Add(linger) // an upstream of several may still answer
	}
	for _, c := range p.asked.likely() {
		first := c.exchanges.from(p.arrival)
		for i := first; i < len(c.exchanges) && c.exchanges[i].at <= l.until && i < first+maxTried; i++ {
			x := c.exchanges[i].item
			if x == l || x.slot != nil || !a.servers.sent(&l.server, &x.sender) {
				continue
			}
			if caller, _ := a.caller(x); caller == l {
				ready = later(ready, a.upstreamReady(x, depth+1))
			}
		}
	}
	return ready
}

// rejects tells whether an attempt that is over may have an exchange that is not: its server
// may have acted on a response that the exchange shows as rejected.
func (a *Assembler) rejects(s *slot) bool {
	return a.cfg.Open != nil && s.channel != nil &&
		a.cfg.Open.Rejecting(s.channel.server, s.question.name, s.question.qtype, time.Unix(0, s.begin-slack), time.Unix(0, s.limit+slack))
}

// refused tells whether an attempt failed soon and has the exchange that shows why: it need
// not wait as long as a silent one.
func (a *Assembler) refused(s *slot) bool {
	if s.at.Outcome == trace.OutcomeOK || s.limit-s.begin >= int64(time.Second) {
		return false
	}
	for _, other := range s.of.slots { // itself, and that of its attempts to connect
		if other.at != s.at {
			continue
		}
		if a.matchSlot(other); !other.exact {
			continue
		}
		last := other.got[len(other.got)-1]
		if last.exchange.ICMP != nil || last.exchange.Reset != nil && !last.closed() {
			return true
		}
	}
	return false
}

// upstreamReady returns when to stop waiting for what belongs to an upstream query.
func (a *Assembler) upstreamReady(x *lookup, depth int) time.Time {
	if x.parent != nil {
		return time.Time{}
	}
	if x.query != nil {
		over := x.end()
		ready := over.Add(linger)
		if !a.now.Before(ready) {
			ready = later(ready, a.treeReady(x, depth))
		}
		return ready
	}
	if x.exchange == nil || !a.servers.recorders[x.server.place] || !x.server.placed {
		return time.Time{}
	}
	if x.answered != math.MaxInt64 {
		return x.end().Add(holdRecord)
	}
	// Its server may be at work on it, although it is not waited for.
	return lastQuery(x.exchange).Add(holdServer + holdRecord)
}
