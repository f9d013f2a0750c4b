package dnstrace

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// timeoutEarly and timeoutLate allow for the clock and the scheduler, and for
// connecting, around forward's read timeout.
const (
	timeoutEarly = 5 * time.Millisecond
	timeoutLate  = time.Second
	// shortestTimeout is forward's least timeout for connecting.
	shortestTimeout = time.Second
)

// attempt makes the entry of an upstream attempt.
func (b *builder) attempt(s *span) trace.Attempt {
	a := trace.Attempt{Attempt: int(s.number), Address: s.peer, Start: trace.Seconds(b.startOf(s)), Duration: b.durationOf(s)}
	a.QName, a.QType = asked(s)
	hop := hopAbove(s)
	if hop == nil {
		return a
	}
	a.Plugin = hop.name
	switch {
	case s.peer == unknownPeer:
		a.Address = b.grpcAddress(hop, s)
		a.Outcome, a.Error = b.grpcOutcome(hop, s)
	case hop.name == forwardPlugin:
		a.Outcome, a.Error = b.forwardOutcome(hop, s)
	}
	return a
}

// asked returns what the upstream of an attempt was asked for, as far as it is not what
// the client asked for: another plugin may have rewritten the question, or it is the
// question of a nested lookup.
func asked(s *span) (qname, qtype string) {
	own := s.rec.ident.q
	for above := s.parent; above != nil; above = above.parent {
		q := above.asks
		if q.Name == "" {
			continue
		}
		if q.Name != own.Name {
			if name := dns.CanonicalName(q.Name); name != dns.CanonicalName(own.Name) {
				qname = name
			}
		}
		if q.Qtype != own.Qtype {
			qtype = typeText(q.Qtype)
		}
		break
	}
	return qname, qtype
}

// grpcAddress returns where an attempt of grpc went, if its order is known.
func (b *builder) grpcAddress(hop, s *span) string {
	addrs := b.rec.plugin.chain.grpcAddrs
	for _, other := range b.spans {
		switch {
		case len(addrs) == 0:
			return ""
		case other == s:
			return addrs[0]
		case other.peer != "" && hopAbove(other) == hop:
			addrs = addrs[1:]
		}
	}
	return ""
}

// grpcOutcome tells how an attempt of grpc ended: it asks the next upstream
// only where one failed.
func (b *builder) grpcOutcome(hop, s *span) (outcome, errText string) {
	last, _ := b.lastAttempt(hop)
	sc := b.scopeOf(hop)
	switch {
	case s.end == open:
		return "", ""
	case s != last:
		return trace.OutcomeError, ""
	case b.answeredIn(hop, sc) && !b.hasHops(hop):
		return trace.OutcomeOK, ""
	case sc != nil && sc.err != nil && b.isLastAsked(hop):
		return errorOutcome(sc.err)
	}
	return "", ""
}

// forwardOutcome tells how an attempt of forward ended. Its span does not say,
// but what forward did next does. What is not certain stays empty.
func (b *builder) forwardOutcome(hop, s *span) (outcome, errText string) {
	if s.end == open {
		return "", ""
	}
	last, tries := b.lastAttempt(hop)
	if s == last && len(hop.rec.spans) >= maxSpans {
		return "", "" // there may have been more
	}
	c := &b.rec.plugin.chain
	if s != last {
		return b.failure(s), ""
	}
	sc := b.scopeOf(hop)
	switch {
	case b.answeredIn(hop, sc), b.handedOn(hop):
		return trace.OutcomeOK, ""
	case sc != nil && sc.err != nil && b.isLastAsked(hop):
		return errorOutcome(sc.err)
	case hop.end == open, s.desperate, hop.rec.canceled:
		return "", ""
	case (c.maxAttempts == 0 || tries < c.maxAttempts) && time.Duration(hop.end-hop.began) < forwardTimeout:
		// forward would have tried again.
		return trace.OutcomeOK, ""
	case b.timedOut(s):
		return trace.OutcomeTimeout, ""
	}
	return "", ""
}

// failure tells how an attempt failed, as far as its duration does. With failover, forward
// counts answers with some rcodes as failures, too.
func (b *builder) failure(s *span) string {
	switch {
	case b.timedOut(s):
		return trace.OutcomeTimeout
	case b.rec.plugin.chain.failover, time.Duration(s.end-s.began) >= shortestTimeout-timeoutEarly:
		return trace.OutcomeFailed
	}
	return trace.OutcomeError
}

// timedOut reports whether an attempt that failed lasted as long as forward
// waits for an answer. A refused or unreachable upstream says so earlier, or,
// over TCP to an address that nobody has, later.
func (b *builder) timedOut(s *span) bool {
	took, limit := time.Duration(s.end-s.began), b.rec.plugin.chain.readTimeout
	return took >= limit-timeoutEarly && took < limit+timeoutLate
}

func errorOutcome(err error) (outcome, errText string) {
	var netErr net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout() ||
		status.Code(err) == codes.DeadlineExceeded {
		return trace.OutcomeTimeout, errorText(err.Error())
	}
	return trace.OutcomeError, errorText(err.Error())
}

// lastAttempt returns the last attempt of hop and how many there were.
func (b *builder) lastAttempt(hop *span) (last *span, tries int) {
	for _, s := range b.spans {
		if s.peer != "" && hopAbove(s) == hop {
			last = s
			tries++
		}
	}
	return last, tries
}

// scopeOf returns the lookup that hop works for, or nil for work in the
// background: nobody waits for that.
func (b *builder) scopeOf(hop *span) *scope {
	for s := hop; s != nil; s = s.parent {
		if s.nested != nil {
			return s.nested
		}
	}
	if hop.rec != hop.rec.query {
		return nil
	}
	return &b.rec.result
}

// answeredIn reports whether the answer was written while hop was at work, so
// that hop got it from its last attempt.
func (b *builder) answeredIn(hop *span, sc *scope) bool {
	return sc != nil && sc.answeredAt != notAnswered && hop.began <= sc.answeredAt && (hop.end == open || hop.end >= sc.answeredAt)
}

// handedOn reports whether hop passed the query to another forward: it does
// after an answer that the other may better.
func (b *builder) handedOn(hop *span) bool {
	for _, s := range b.spans {
		if s.peer == "" && s.name == forwardPlugin && s != hop && hopAbove(s) == hop {
			return true
		}
	}
	return false
}

// hasHops reports whether hop passed the query on.
func (b *builder) hasHops(hop *span) bool {
	for _, s := range b.spans {
		if s.peer == "" && hopAbove(s) == hop {
			return true
		}
	}
	return false
}

// isLastAsked reports whether no plugin that asks upstreams, or answers, started
// after hop in the same lookup, so that a failure of the lookup is hop's.
func (b *builder) isLastAsked(hop *span) bool {
	sc := b.scopeOf(hop)
	for _, s := range b.spans {
		if s.peer == "" && b.startOf(s) > b.startOf(hop) && b.scopeOf(s) == sc {
			return false
		}
	}
	return hop.end != open
}
