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

// manyEquals is where counting ends of what cannot be told apart anyway.
const manyEquals = 100

// attemptTime returns when an attempt began and when it was over, at the latest.
func attemptTime(start time.Time, at *trace.Attempt) (begin, over time.Time) {
	begin = start.Add(at.Start.Duration())
	if at.Duration == nil {
		return begin, begin.Add(holdServer)
	}
	return begin, begin.Add(at.Duration.Duration())
}

// candidates returns the lookups, up to a number, whose exchange may be the
// given attempt of l: the same question, sent from the server's namespace to the
// attempt's address during the attempt, with an end that fits the attempt's.
func (a *Assembler) candidates(l *lookup, at *trace.Attempt, most int) []*lookup {
	var found []*lookup
	start, _ := l.attempts()
	begin, over := attemptTime(start, at)
	a.legsOf(l, begin.Add(-slack), over.Add(slack), func(leg *lookup) bool {
		if leg != l && a.fits(l, at, leg.exchange) {
			found = append(found, leg)
		}
		return len(found) < most
	})
	return found
}

func (a *Assembler) fits(l *lookup, at *trace.Attempt, ex *trace.Exchange) bool {
	if !a.sentByServerOf(l, ex) || !stampFits(l, ex) {
		return false
	}
	if addr, err := netip.ParseAddrPort(at.Address); err != nil || addr != netip.AddrPortFrom(ex.ServerIP, ex.ServerPort) {
		return false
	}
	start, _ := l.attempts()
	begin, over := attemptTime(start, at)
	if ex.Time.Before(begin.Add(-slack)) || ex.Time.After(over.Add(slack)) {
		return false
	}
	if at.Duration == nil || at.Outcome == "" {
		return true // CoreDNS cannot always tell how an attempt ended
	}
	answered := ex.Duration != nil && !end(ex.Time, ex.Duration).After(over.Add(slack))
	return answered == (at.Outcome == trace.OutcomeOK)
}

// stampFits tells whether the TRACEPARENT that an exchange carried allows it to
// be a leg of l: it names l's trace, was not captured or, where it is not known
// whether the server stamps, there is none.
func stampFits(l *lookup, ex *trace.Exchange) bool {
	switch {
	case l.query != nil:
		return !l.query.Stamped || stampedWith(ex, l.query.TraceID)
	case l.refresh != nil:
		return stampedWith(ex, l.refresh.TraceID)
	}
	return true
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
func (a *Assembler) sentByServerOf(l *lookup, ex *trace.Exchange) bool {
	if len(ex.Path) > 0 && ex.Path[0].Direction != trace.DirectionTX {
		return false
	}
	if l.refresh != nil {
		// Its record does not tell the server, only that it keeps records.
		return len(ex.Path) > 0 && a.servers.recordsAt(ex.Path[0].NetNS)
	}
	in := l.serverSide()
	if in == nil {
		ip := l.query.ServerIP
		return !ip.IsValid() || ip.IsUnspecified() || ip == ex.ClientIP
	}
	netns, ok := arrivedAt(in)
	if !ok || len(ex.Path) == 0 {
		return false
	}
	if s, c := in.Server, ex.Client; s != nil && c != nil && s.PID != 0 && c.PID != 0 && s.PID != c.PID {
		return false
	}
	return ex.Path[0].NetNS == netns
}

// inferred returns the lookups whose exchange may be an upstream leg of one
// whose server keeps no records: the same question, sent by the server between
// the query's arrival and the response's departure.
func (a *Assembler) inferred(l *lookup) []*lookup {
	var found []*lookup
	in := l.serverSide()
	if in == nil {
		return nil
	}
	from, to := serverTime(in)
	if to == 0 {
		to = holdServer
	}
	a.legsOf(l, in.Time.Add(from), in.Time.Add(to), func(leg *lookup) bool {
		if leg != l && a.mayHaveCaused(l, leg.exchange) {
			found = append(found, leg)
		}
		return true
	})
	slices.SortFunc(found, func(x, y *lookup) int {
		return cmp.Or(x.exchange.Time.Compare(y.exchange.Time), cmp.Compare(x.sequence, y.sequence))
	})
	return found
}

func (a *Assembler) mayHaveCaused(l *lookup, ex *trace.Exchange) bool {
	in := l.serverSide()
	if in == nil || l.query != nil || !a.sentByServerOf(l, ex) {
		return false
	}
	from, to := serverTime(in)
	sent := ex.Time.Sub(in.Time)
	if sent < from {
		return false
	}
	if to == 0 {
		return sent <= holdServer
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

// claims counts, up to a number, how many attempts and recordless lookups the
// exchange of a leg could belong to. More than one cannot be told apart.
func (a *Assembler) claims(leg *lookup, most int) int {
	n := 0
	a.callersOf(leg, func(l *lookup) bool {
		if l != leg {
			n += a.claimsOf(l, leg.exchange)
		}
		return n < most
	})
	return n
}

func (a *Assembler) claimsOf(l *lookup, ex *trace.Exchange) int {
	if !l.recorded() {
		if a.mayHaveCaused(l, ex) {
			return 1
		}
		return 0
	}
	n := 0
	_, attempts := l.attempts()
	for i := range attempts {
		if a.fits(l, &attempts[i], ex) {
			n++
		}
	}
	return n
}
