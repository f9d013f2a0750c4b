package assemble

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// How a record was found that does not have the flow of the exchange, or not
// its time: the trace says so.
const (
	matchedClock  = "that the server's record is of this query is inferred: port, ID and question agree, the clocks do not"
	matchedClient = "that the server's record is of this query is inferred from ID, question and time: the server saw another client address"
)

// reunite gives a lookup that is due without a record, or without an exchange,
// the other half: late enough that whatever fits better has had its chance.
func (a *Assembler) reunite(l *lookup) {
	if l.refresh != nil || l.exchange != nil && l.query != nil {
		return
	}
	if half, ok := a.otherHalf(l); ok {
		a.unite(l, half, matchedClock)
		return
	}
	if l.exchange == nil {
		return // the exchange comes last: it looks for its record
	}
	if record, ok := a.translatedRecord(l); ok {
		a.unite(l, record, matchedClient)
	}
}

func (a *Assembler) unite(l, half *lookup, matched string) {
	a.forget(half)
	a.unindex(l)
	if l.exchange == nil {
		l.exchange, l.far = half.exchange, half.far
	}
	if l.query == nil {
		l.query = half.query
	}
	l.matched = matched
	a.index(l)
	a.servers.records(l.serverSide())
}

// otherHalf finds the one half of the same flow whose time shows another clock.
func (a *Assembler) otherHalf(l *lookup) (*lookup, bool) {
	var found *lookup
	for _, half := range a.byFlow[l.flow] {
		if half == l || half.refresh != nil || (half.exchange == nil) == (l.exchange == nil) || (half.query == nil) == (l.query == nil) {
			continue
		}
		ex, q := l.exchange, half.query
		if ex == nil {
			ex, q = half.exchange, l.query
		}
		if q == nil || ex.Time.Sub(q.Time).Abs() > maxClockOffset || !within(ex, q) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = half
	}
	return found, found != nil
}

// within tells whether what a server did can be a part of an exchange.
func within(ex *trace.Exchange, q *trace.Query) bool {
	return ex.Duration == nil || q.DNS.Duration == nil || *q.DNS.Duration <= *ex.Duration
}

// translatedRecord finds the one record without an exchange that has the ID and
// question of an exchange without a record, during it, from another client
// address: somebody translated it where nobody watched.
func (a *Assembler) translatedRecord(l *lookup) (*lookup, bool) {
	q := a.sameQuestion(l)
	if q == nil {
		return nil, false
	}
	ex := l.exchange
	var found []*lookup
	q.records.between(ex.Time.Add(-slack), l.end().Add(slack), func(record *lookup) bool {
		r := record.query
		if r.ID == ex.ID && r.Protocol == ex.Protocol && r.ClientIP != ex.ClientIP && servedBy(ex, r) && within(ex, r) {
			found = append(found, record)
		}
		return len(found) < 2
	})
	if len(found) != 1 {
		return nil, false
	}
	return found[0], true
}

// servedBy tells whether a record's server may be the one that was asked.
func servedBy(ex *trace.Exchange, q *trace.Query) bool {
	if !q.ServerIP.IsValid() || q.ServerIP.IsUnspecified() {
		return true
	}
	for _, addr := range serverAddrs(ex) {
		if addr == netip.AddrPortFrom(q.ServerIP, q.ServerPort) {
			return true
		}
	}
	// A Service that was not seen to be translated either; but what the server
	// itself sent, to its upstream, is not what it was asked.
	return ex.NAT == nil && ex.ClientIP != q.ServerIP
}
