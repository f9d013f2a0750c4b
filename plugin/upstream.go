package dnstrace

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// timeoutEarly and timeoutLate allow for the clock and the scheduler, and for
// connecting, around forward's read timeout.
const (
	timeoutEarly = 5 * time.Millisecond
	timeoutLate  = time.Second
)

// attempt makes the entry of an upstream attempt.
func (b *builder) attempt(s *span, number int) trace.Attempt {
	a := trace.Attempt{Attempt: number, Address: s.peer, Start: trace.Seconds(b.startOf(s)), Duration: b.durationOf(s)}
	if hop := hopAbove(s); hop != nil {
		a.Plugin = hop.name
		a.Outcome, a.Error = b.attemptOutcome(hop, s)
	}
	return a
}

// attemptOutcome tells how an attempt of forward ended. Its span does not say,
// but what forward did next does. What is not certain stays empty.
func (b *builder) attemptOutcome(hop, s *span) (outcome, errText string) {
	if s.end == open || hop.name != forwardPlugin {
		return "", ""
	}
	last, tries := b.lastAttempt(hop)
	c := &b.rec.plugin.chain
	if s != last {
		switch {
		case b.timedOut(s):
			return trace.OutcomeTimeout, ""
		case c.failover:
			return "", "" // an error, or an answer with one of the rcodes
		}
		return trace.OutcomeError, ""
	}
	sc := b.scopeOf(hop)
	switch {
	case b.answeredIn(hop, sc), b.handedOn(hop):
		return trace.OutcomeOK, ""
	case sc != nil && sc.err != nil && sc.answeredAt == notAnswered && b.isLastForward(hop):
		return errorOutcome(sc.err)
	case hop.end == open:
		return "", ""
	case (c.maxAttempts == 0 || tries < c.maxAttempts) && time.Duration(hop.end-hop.start) < forwardTimeout && b.rec.query.outcome != trace.OutcomeError:
		// forward would have tried again.
		return trace.OutcomeOK, ""
	case b.timedOut(s):
		return trace.OutcomeTimeout, ""
	}
	return "", ""
}

// timedOut reports whether an attempt that failed lasted as long as forward
// waits for an answer. A refused or unreachable upstream says so earlier, or,
// over TCP to an address that nobody has, later.
func (b *builder) timedOut(s *span) bool {
	took, limit := time.Duration(s.end-s.start), b.rec.plugin.chain.readTimeout
	return took >= limit-timeoutEarly && took < limit+timeoutLate
}

func errorOutcome(err error) (outcome, errText string) {
	var netErr net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout() {
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
	return sc != nil && sc.answeredAt != notAnswered && hop.start <= sc.answeredAt && (hop.end == open || hop.end >= sc.answeredAt)
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

// isLastForward reports whether no other forward started after hop in the same
// lookup, so that a failure of the lookup is hop's.
func (b *builder) isLastForward(hop *span) bool {
	sc := b.scopeOf(hop)
	for _, s := range b.spans {
		if s.peer == "" && s.name == forwardPlugin && b.startOf(s) > b.startOf(hop) && b.scopeOf(s) == sc {
			return false
		}
	}
	return hop.end != open
}
