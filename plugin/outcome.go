package dnstrace

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How an attempt ended is what its span says. CoreDNS's own do not: then it shows in what the
// plugin did next, and returned. What is not certain stays empty.

const (
	// timeoutEarly and timeoutLate allow for the clock and the scheduler, and for
	// connecting, around forward's read timeout.
	timeoutEarly = 5 * time.Millisecond
	timeoutLate  = time.Second
	// shortestDial is the least time that forward waits for a connection.
	shortestDial = time.Second
)

// judge says how the attempts of a complete record ended.
func (rec *record) judge() {
	for i := range rec.attempts {
		a := &rec.attempts[i]
		a.outcome, a.errText = rec.outcomeOf(i)
		if a.address == unknownPeer {
			a.address = rec.unnamedPeer(i)
		}
	}
}

func (rec *record) outcomeOf(attempt int) (outcome, errText string) {
	a := &rec.attempts[attempt]
	switch {
	case a.err != nil:
		return errorOutcome(a.err)
	case a.failed:
		return trace.OutcomeFailed, ""
	case a.end == open, a.hop == none, rec.isAtOnce(attempt):
		return "", ""
	}
	for next := attempt + 1; next < len(rec.attempts); next++ {
		if rec.attempts[next].hop == a.hop {
			return rec.failure(a), ""
		}
	}
	if rec.isFull() {
		return "", "" // there may have been more
	}
	return rec.lastOutcome(a.hop)
}

// isAtOnce reports whether an attempt was made at the same time as another one of its hop: then
// what the hop returned is not its.
func (rec *record) isAtOnce(attempt int) bool {
	a := &rec.attempts[attempt]
	for i := range rec.attempts {
		if b := &rec.attempts[i]; i != attempt && b.hop == a.hop && b.began < a.end && (b.end == open || b.end > a.began) {
			return true
		}
	}
	return false
}

// lastOutcome tells how the last attempt of a hop ended.
func (rec *record) lastOutcome(hop int) (outcome, errText string) {
	h, r := &rec.hops[hop], rec.resultOf(hop)
	switch {
	case rec.hasHops(hop):
		// forward goes on only after an answer that another forward may better.
		if h.name == forwardPlugin && rec.settings(hop).next != nil {
			return trace.OutcomeOK, ""
		}
	case r.err != nil:
		return errorOutcome(r.err)
	case r.known && plugin.ClientWrite(int(r.rcode)):
		return trace.OutcomeOK, ""
	}
	return "", ""
}

// resultOf returns what the handler of a hop returned. A forward returns what the next one did.
func (rec *record) resultOf(hop int) result {
	h := &rec.hops[hop]
	if h.by == nil && h.end != open && h.name == forwardPlugin && h.parent != none && rec.hops[h.parent].name == forwardPlugin {
		return rec.resultOf(h.parent)
	}
	return h.result
}

// failure tells how an attempt failed, after which its plugin made another one, as far as its
// duration does. forward goes on after an answer too, if its rcode is one of failover.
func (rec *record) failure(a *attemptData) string {
	s, took := rec.settings(a.hop), time.Duration(a.end-a.began)
	switch rec.hops[a.hop].name {
	case grpcPlugin:
		return trace.OutcomeError
	case forwardPlugin:
		limit := s.readTimeout
		switch {
		case limit > 0 && took >= limit-timeoutEarly && took < limit+timeoutLate:
			return trace.OutcomeTimeout
		case limit > 0 && !s.failover && took < shortestDial-timeoutEarly:
			// A refused or unreachable upstream says so at once.
			return trace.OutcomeError
		}
	}
	return trace.OutcomeFailed
}

func errorOutcome(err error) (outcome, errText string) {
	var netErr net.Error
	if errors.Is(err, context.Canceled) { // by us: the client left
		return "", errorText(err.Error())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout() || status.Code(err) == codes.DeadlineExceeded {
		return trace.OutcomeTimeout, errorText(err.Error())
	}
	return trace.OutcomeError, errorText(err.Error())
}

// unnamedPeer returns where an attempt of grpc went, if its order is known.
func (rec *record) unnamedPeer(attempt int) string {
	hop, before := rec.attempts[attempt].hop, 0
	for i := range attempt {
		if rec.attempts[i].hop == hop {
			before++
		}
	}
	if hop == none || before >= len(rec.settings(hop).addrs) {
		return ""
	}
	return rec.settings(hop).addrs[before]
}

// askedFor returns what the upstream of an attempt was asked for, as far as it is not what
// the client asked for: another plugin may have rewritten the question, or it is the
// question of a nested lookup.
func (rec *record) askedFor(attempt int) (qname, qtype string) {
	own := rec.ident.q
	for hop := rec.attempts[attempt].hop; hop != none; hop = rec.hops[hop].parent {
		q := rec.hops[hop].asks
		if q.Name == "" {
			continue
		}
		if name := dns.CanonicalName(q.Name); q.Name != own.Name && name != dns.CanonicalName(own.Name) {
			qname = name
		}
		if q.Qtype != own.Qtype {
			qtype = dns.Type(q.Qtype).String()
		}
		break
	}
	return qname, qtype
}
