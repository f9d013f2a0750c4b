package assemble

import (
	"github.com/dnstrace/dnstrace/trace"
)

// How a record was found that does not have the flow of the exchange, or not
// its time: the trace says so.
const (
	matchedClock  = "that the server's record is of this query is inferred: port, ID and question agree, the clocks do not"
	matchedClient = "that the server's record is of this query is inferred from ID, question and time: the server saw another client address"
	matchedServer = "that the server's record is of this query is inferred from port, ID, question and time: the server has another address than was asked"
)

// reunite gives a lookup that is due without a record, or without an exchange,
// the other half: late enough that whatever fits better has had its chance.
func (a *Assembler) reunite(l *lookup) {
	if l.refresh != nil || l.exchange != nil && l.query != nil {
		return
	}
	if half, matched := a.otherHalf(l); half != nil {
		a.unite(l, half, matched)
		return
	}
	if l.exchange == nil {
		a.repeated(l)
		return // the exchange comes last: it looks for its record
	}
	if record := a.translatedRecord(l); record != nil {
		a.unite(l, record, matchedClient)
	}
}

// repeats gives a record that waited in vain for an exchange of its own to the lookup of
// which it is a retransmission that was not seen, or not reported yet.
func (a *Assembler) repeats(l *lookup) bool {
	if l.exchange != nil || l.query == nil {
		return false
	}
	for of := range a.flows.of(l.flow) {
		if of.query != nil && a.fits(l.query, l.from, of) == own {
			a.unite(of, l, "")
			return true
		}
	}
	return false
}

// unite makes one lookup of two; half has the server's record, or the exchange.
func (a *Assembler) unite(l, half *lookup, matched string) {
	l.again = l.again || half.again || half.heapIndex < 0
	a.forget(half)
	half.lose()
	a.disown(half)
	a.orphan(half)
	alter := func() {
		if l.exchange == nil {
			l.exchange, l.serverExchange, l.caller = half.exchange, half.serverExchange, half.caller
			if l.query != nil {
				a.join(l)
			}
		}
		for _, q := range half.records {
			a.addRecord(l, q, half.from)
		}
		if matched != "" {
			l.matched = matched
		}
	}
	a.change(l, alter)
	a.revive(l.root())
}

// orphan holds the upstream queries of a lookup again, for another that takes its place.
func (a *Assembler) orphan(l *lookup) {
	queries := l.inferred
	for _, s := range l.slots {
		queries = append(queries, s.got...)
		s.reset()
	}
	l.inferred = nil
	for _, x := range queries {
		if x.parent != l {
			continue
		}
		x.parent, x.added = nil, a.now
		a.unindex(x)
		a.index(x)
		a.held.push(x)
		a.await(x, a.waits(x))
	}
}

// otherHalf finds the one half of the same flow whose time shows another clock, or
// whose server another address.
func (a *Assembler) otherHalf(l *lookup) (found *lookup, matched string) {
	for half := range a.flows.of(l.flow) {
		if half == l || half.refresh != nil || half.parent != nil || (half.exchange == nil) == (l.exchange == nil) || (half.query == nil) == (l.query == nil) {
			continue
		}
		ex, q, from := l.exchange, half.query, half.from
		if ex == nil {
			ex, q, from = half.exchange, l.query, l.from
		}
		if a.servers.owner(from, q, ex) != own || fitOf(ex, q) == noFit || ex.Time.Sub(q.Time).Abs() > maxClockOffset && !belongs(ex, q) || !within(ex, q) {
			continue
		}
		if found != nil {
			return nil, ""
		}
		if found, matched = half, matchedClock; belongs(ex, q) {
			matched = matchedServer
		}
	}
	return found, matched
}

// repeated gives a record whose exchange was not seen the other records of the query:
// of retransmissions.
func (a *Assembler) repeated(l *lookup) {
	for again := true; again; {
		again = false
		for half := range a.flows.of(l.flow) {
			if half != l && half.exchange == nil && half.query != nil && half.query.Time.Sub(l.query.Time).Abs() <= holdServer && fitsRecord(half, l) {
				a.unite(l, half, "")
				again = true // the list has changed
				break
			}
		}
	}
}

// fitsRecord tells whether the records of two lookups of one flow are of one server.
func fitsRecord(l, m *lookup) bool {
	p, q := l.query, m.query
	return p.ServerIP == q.ServerIP && p.ServerPort == q.ServerPort && sameSender(l.from, m.from)
}

// within tells whether what a server did can be a part of an exchange.
func within(ex *trace.Exchange, q *trace.Query) bool {
	return ex.Duration == nil || q.DNS.Duration == nil || *q.DNS.Duration <= *ex.Duration
}

// translatedRecord finds the one record without an exchange that has the ID and
// question of an exchange without a record, during it, from another client
// address: somebody translated it where nobody watched.
func (a *Assembler) translatedRecord(l *lookup) *lookup {
	q := l.position.asked
	if q == nil || len(q.records) == 0 {
		return nil
	}
	ex := l.exchange
	var found *lookup
	from, until := ex.Time.UnixNano()-slack, l.end().UnixNano()+slack
	for i := q.records.from(from); i < len(q.records) && q.records[i].at <= until; i++ {
		record := q.records[i].item
		r := record.query
		if record.heapIndex < 0 || r.ID != ex.ID || r.Protocol != ex.Protocol || r.ClientIP == ex.ClientIP || a.servers.owner(record.from, r, ex) != own || fitOf(ex, r) == noFit || !within(ex, r) {
			continue
		}
		if found != nil {
			return nil
		}
		found = record
	}
	return found
}
