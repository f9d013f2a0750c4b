package dnstrace

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The outcome of an attempt is what its span says. The spans of CoreDNS's own plugins do not: then it follows from
// what the plugin did next, and returned. An uncertain outcome stays empty.

const (
	// timeoutEarly and timeoutLate are how much forward's read timeout may differ from the duration of an attempt,
	// because of the clock, the scheduler, and connecting.
	timeoutEarly = 5 * time.Millisecond
	timeoutLate  = time.Second
	// shortestDial is the least time that forward waits for a connection.
	shortestDial = time.Second
)

// judge sets the outcomes of the attempts of a closed record, and the addresses of grpc's, if their order is known.
func (rec *record) judge() {
	for i, a := range rec.attempts {
		a.outcome, a.errText = a.judged()
		if a.address != unknownPeer {
			continue
		}
		a.address = ""
		before := 0
		for _, b := range rec.attempts[:i] {
			if b.hop() == a.hop() {
				before++
			}
		}
		if addrs := a.hop().settings().addrs; before < len(addrs) {
			a.address = addrs[before]
		}
	}
}

// judged returns how an attempt ended.
func (s *span) judged() (outcome, errText string) {
	h, last := s.hop(), true
	switch {
	case s.err != nil:
		return errorOutcome(s.err)
	case s.failed:
		return trace.OutcomeFailed, ""
	case s.took == open, h == nil:
		return "", ""
	}
	for _, b := range s.rec.attempts {
		switch {
		case b == s || b.hop() != h:
		case b.began < s.began+s.took && (b.took == open || b.began+b.took > s.began):
			return "", "" // at the same time: the hop may have returned what the other one got
		case b.number > s.number:
			last = false
		}
	}
	switch {
	case !last:
		return s.failure(h), ""
	case s.rec.isFull():
		return "", "" // there may have been more
	}
	passed, _ := s.rec.passedOn(h)
	switch r := h.returning(); {
	case passed && h.name == forwardPlugin && h.settings().next != nil:
		// forward calls the next forward only after an answer.
		return trace.OutcomeOK, ""
	case passed:
	case r.err != nil:
		return errorOutcome(r.err)
	case r.returned && plugin.ClientWrite(r.rcode):
		return trace.OutcomeOK, ""
	}
	return "", ""
}

// returning returns the hop with what the handler of a hop returned: a forward returns what the next one did.
func (s *span) returning() *span {
	if above := s.parent.hop(); s.calledBy == nil && s.took != open && s.name == forwardPlugin && above != nil && above.name == forwardPlugin {
		return above.returning()
	}
	return s
}

// failure returns how an attempt failed that another one of its hop followed, if its duration shows. forward also
// makes another one after an answer with an rcode of failover.
func (s *span) failure(h *span) string {
	known, took := h.settings(), time.Duration(s.took)
	limit := known.readTimeout
	switch {
	case h.name == grpcPlugin:
		return trace.OutcomeError
	case h.name != forwardPlugin || limit == 0:
	case took >= limit-timeoutEarly && took < limit+timeoutLate:
		return trace.OutcomeTimeout
	case !known.failover && took < shortestDial-timeoutEarly:
		// A refused connection, or an unreachable upstream, fails at once.
		return trace.OutcomeError
	}
	return trace.OutcomeFailed
}

func errorOutcome(err error) (outcome, errText string) {
	var netErr net.Error
	outcome = trace.OutcomeError
	switch {
	case errors.Is(err, context.Canceled): // the client left
		outcome = ""
	case errors.As(err, &netErr) && netErr.Timeout(), status.Code(err) == codes.DeadlineExceeded:
		outcome = trace.OutcomeTimeout
	}
	return outcome, errorText(err.Error())
}

// askedFor returns the name and type that the upstreams of a hop were asked for, where they differ from the query's:
// another plugin rewrote the question, or it is a nested lookup.
func (s *span) askedFor() (qname, qtype string) {
	for s != nil && s.asks.Name == "" {
		s = s.parent.hop()
	}
	if s == nil {
		return "", ""
	}
	own, q := s.q.ident.q, s.asks
	if name := dns.CanonicalName(q.Name); q.Name != own.Name && name != dns.CanonicalName(own.Name) {
		qname = name
	}
	if q.Qtype != own.Qtype {
		qtype = dns.Type(q.Qtype).String()
	}
	return qname, qtype
}
