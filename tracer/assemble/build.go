package assemble

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// maxDepth bounds a chain of servers: node-local cache, cluster DNS, the
// network's resolver; what is deeper is a loop.
const maxDepth = 8

// build makes the trace of a lookup that has been forgotten, and forgets the
// legs that it takes.
func (a *Assembler) build(l *lookup) *trace.Trace {
	t := &trace.Trace{Exchange: l.exchange, Query: l.query, Diagnosis: []trace.Finding{}, Gaps: []string{}}
	if l.exchange != nil {
		a.fromExchange(t, l.exchange)
	}
	if l.query != nil {
		fromQuery(t, l.query)
	}
	t.V, t.Record = trace.Version, trace.KindTrace
	t.Upstreams = a.legs(l, &t.Gaps, 0)
	if l.again > 0 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("the server recorded this query %d times; the first record is shown", l.again+1))
	}
	return t
}

func (a *Assembler) fromExchange(t *trace.Trace, ex *trace.Exchange) {
	t.Header = ex.Header
	t.QName, t.QType, t.RCode = ex.QName, ex.QType, ex.RCode
	t.Duration, t.Outcome = ex.Duration, ex.Outcome
	t.Client, t.Server = ex.Client, ex.Server
	if ex.LostEvents > 0 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("%d events were lost on this node while it lasted: packets may be missing", ex.LostEvents))
	}
	if t.Query == nil && a.servers.missed(ex) {
		t.Gaps = append(t.Gaps, trace.GapNotRecorded)
	}
}

func fromQuery(t *trace.Trace, q *trace.Query) {
	if t.Exchange != nil {
		// The server may have adopted the trace context of its client.
		t.TraceID = q.TraceID
		return
	}
	t.Header = q.Header
	t.QName, t.QType, t.RCode = q.QName, q.QType, q.RCode
	t.Duration = q.Duration
	t.Outcome = trace.OutcomeAnswered
	if q.Outcome == trace.OutcomeNoResponse {
		t.Outcome = trace.OutcomeUnanswered
	}
	t.Gaps = append(t.Gaps, "its packets between client and server were not observed")
}

// legs joins the upstream exchanges of a lookup.
func (a *Assembler) legs(l *lookup, gaps *[]string, depth int) []trace.Upstream {
	if depth >= maxDepth {
		return []trace.Upstream{}
	}
	if l.query == nil {
		return a.inferredLegs(l, gaps, depth)
	}
	// All are matched before any is taken: a leg that is taken competes no more.
	found := make([]*lookup, len(l.query.Upstreams))
	for i := range l.query.Upstreams {
		at := &l.query.Upstreams[i]
		found[i] = a.leg(l, at, gaps)
	}
	upstreams := make([]trace.Upstream, 0, len(found))
	for i, leg := range found {
		u := trace.Upstream{Attempt: &l.query.Upstreams[i], Join: trace.JoinNone, Upstreams: []trace.Upstream{}}
		if leg != nil {
			u.Join = trace.JoinExact
			a.take(&u, leg, gaps, depth)
		}
		upstreams = append(upstreams, u)
	}
	return upstreams
}

// leg returns the one lookup that must be the attempt, or nil.
func (a *Assembler) leg(l *lookup, at *trace.Attempt, gaps *[]string) *lookup {
	candidates := a.candidates(l, at)
	if len(candidates) == 0 {
		*gaps = append(*gaps, fmt.Sprintf("the packets of attempt %d%s were not observed", at.Attempt, to(at)))
		return nil
	}
	// l itself is forgotten and no longer counted among the claims.
	others := 0
	for _, c := range candidates {
		others += a.claims(c) + claimsOf(l, c.exchange) - 1
	}
	if len(candidates) == 1 && others == 0 {
		return candidates[0]
	}
	*gaps = append(*gaps, fmt.Sprintf("attempt %d%s: %d exchanges of the same question fit and cannot be told apart", at.Attempt, to(at), len(candidates)+others))
	return nil
}

// to says where an attempt went; the grpc plugin does not always tell.
func to(at *trace.Attempt) string {
	if at.Address == "" {
		return ""
	}
	return " to " + at.Address
}

func (a *Assembler) inferredLegs(l *lookup, gaps *[]string, depth int) []trace.Upstream {
	upstreams := []trace.Upstream{}
	ambiguous := 0
	for _, leg := range a.inferred(l) {
		if a.claims(leg) > 0 {
			ambiguous++
			continue
		}
		u := trace.Upstream{Join: trace.JoinInferred, Upstreams: []trace.Upstream{}}
		a.take(&u, leg, gaps, depth)
		upstreams = append(upstreams, u)
	}
	if ambiguous > 0 {
		*gaps = append(*gaps, fmt.Sprintf("%d upstream exchanges of the same question belong to this lookup or to another and cannot be told apart", ambiguous))
	}
	return upstreams
}

func (a *Assembler) take(u *trace.Upstream, leg *lookup, gaps *[]string, depth int) {
	a.forget(leg)
	u.Exchange, u.Query = leg.exchange, leg.query
	u.Upstreams = a.legs(leg, gaps, depth+1)
}
