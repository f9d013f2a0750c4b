package assemble

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// slack is how far the clock of CoreDNS's process and that of its kernel may
// disagree about one moment, scheduling between the two included.
const slack = 500 * time.Microsecond

// candidates returns the lookups whose exchange may be the given attempt of l:
// the same question, sent from the server's namespace to the attempt's address
// during the attempt, with an end that fits the attempt's.
func (a *Assembler) candidates(l *lookup, at *trace.Attempt) []*lookup {
	var found []*lookup
	for _, leg := range a.byQuestion[l.key] {
		if leg != l && leg.exchange != nil && fits(l, at, leg.exchange) {
			found = append(found, leg)
		}
	}
	return found
}

func fits(l *lookup, at *trace.Attempt, ex *trace.Exchange) bool {
	if !sentByServerOf(l, ex) || l.query.Stamped && !stampedWith(ex, l.query.TraceID) {
		return false
	}
	if addr, err := netip.ParseAddrPort(at.Address); err != nil || addr != netip.AddrPortFrom(ex.ServerIP, ex.ServerPort) {
		return false
	}
	begin := l.query.Time.Add(at.Start.Duration())
	if ex.Time.Before(begin.Add(-slack)) {
		return false
	}
	if at.Duration == nil {
		return true
	}
	over := begin.Add(at.Duration.Duration() + slack)
	if ex.Time.After(over) {
		return false
	}
	if at.Outcome == "" {
		return true // CoreDNS cannot always tell how an attempt ended
	}
	answered := ex.Duration != nil && !end(ex.Time, ex.Duration).After(over)
	return answered == (at.Outcome == trace.OutcomeOK)
}

// stampedWith tells whether an exchange may be of a trace that stamps its
// upstream queries: its TRACEPARENT says so, or was not captured.
func stampedWith(ex *trace.Exchange, id trace.TraceID) bool {
	const prefix, digits = len("00-"), 32
	if len(ex.Traceparent) < prefix+digits {
		return true
	}
	stamped, err := trace.ParseTraceID(ex.Traceparent[prefix : prefix+digits])
	return err != nil || trace.SameLookup(stamped, id)
}

// sentByServerOf tells whether an exchange left the place where l's server is:
// the namespace in which l's query arrived or, where no packet of l was seen,
// the address that CoreDNS had.
func sentByServerOf(l *lookup, ex *trace.Exchange) bool {
	if l.exchange == nil {
		ip := l.query.ServerIP
		return !ip.IsValid() || ip.IsUnspecified() || ip == ex.ClientIP
	}
	netns, ok := arrivedAt(l.exchange)
	if !ok || len(ex.Path) == 0 {
		return false
	}
	if s, c := l.exchange.Server, ex.Client; s != nil && c != nil && s.PID != 0 && c.PID != 0 && s.PID != c.PID {
		return false
	}
	return ex.Path[0].NetNS == netns && ex.Path[0].Direction == trace.DirectionTX
}

// inferred returns the lookups whose exchange may be an upstream leg of one
// whose server keeps no records: the same question, sent by the server between
// the query's arrival and the response's departure.
func (a *Assembler) inferred(l *lookup) []*lookup {
	var found []*lookup
	for _, leg := range a.byQuestion[l.key] {
		if leg != l && leg.exchange != nil && mayHaveCaused(l, leg.exchange) {
			found = append(found, leg)
		}
	}
	slices.SortFunc(found, func(x, y *lookup) int {
		return cmp.Or(x.exchange.Time.Compare(y.exchange.Time), cmp.Compare(x.sequence, y.sequence))
	})
	return found
}

func mayHaveCaused(l *lookup, ex *trace.Exchange) bool {
	if l.exchange == nil || l.query != nil || !sentByServerOf(l, ex) {
		return false
	}
	from, to := serverTime(l.exchange)
	sent := ex.Time.Sub(l.exchange.Time)
	if sent < from {
		return false
	}
	if to == 0 {
		return true
	}
	return sent <= to && (ex.Duration == nil || sent+ex.Duration.Duration() <= to)
}

// serverTime returns when, since the start of the exchange, the query had come
// to the server and when the response left it; 0 where no response was seen.
func serverTime(ex *trace.Exchange) (from, to time.Duration) {
	for i := range ex.Path {
		s := &ex.Path[i]
		if s.Message == trace.MessageResponse {
			return from, s.Offset.Duration()
		}
		from = s.Offset.Duration()
	}
	return from, 0
}

// claims counts how many attempts and recordless lookups the exchange of a leg
// could belong to. More than one cannot be told apart.
func (a *Assembler) claims(leg *lookup) int {
	// Most lookups come from where no query ever arrives; a lookup whose
	// packets were not seen might claim any.
	if path := leg.exchange.Path; a.unseen == 0 && (len(path) == 0 || !a.servers.arrivals[path[0].NetNS]) {
		return 0
	}
	n := 0
	for _, l := range a.byQuestion[leg.key] {
		if l == leg {
			continue
		}
		n += claimsOf(l, leg.exchange)
	}
	return n
}

func claimsOf(l *lookup, ex *trace.Exchange) int {
	if l.query == nil {
		if mayHaveCaused(l, ex) {
			return 1
		}
		return 0
	}
	n := 0
	for i := range l.query.Upstreams {
		if fits(l, &l.query.Upstreams[i], ex) {
			n++
		}
	}
	return n
}
