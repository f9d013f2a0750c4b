package assemble

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// maxDepth bounds a chain of servers: node-local cache, cluster DNS, the
// network's resolver; what is deeper is a loop.
const maxDepth = 8

// build makes the trace of a lookup that has been forgotten, and forgets the
// legs that it takes.
func (a *Assembler) build(l *lookup) *trace.Trace {
	a.firstRecord(l)
	t := a.traces.Take()
	*t = trace.Trace{Exchange: l.exchange, Query: l.query, Diagnosis: []trace.Finding{}, Gaps: []string{}}
	if l.exchange != nil {
		a.fromExchange(t, l)
	}
	if l.query != nil {
		fromQuery(t, l.query)
	}
	if l.refresh != nil {
		fromRefresh(t, l.refresh)
	}
	t.V, t.Record = trace.Version, trace.KindTrace
	t.Upstreams = a.legs(l, &t.Gaps, 0)
	if l.refresh != nil {
		t.RCode = upstreamCode(t.Upstreams)
	}
	t.Upstreams = a.appendRepeats(t.Upstreams, l, &t.Gaps)
	l.appendGaps(t)
	if a.cfg.Lacks.Unsampled != "" && (t.Exchange == nil || unseen(t.Upstreams)) {
		t.Gaps = append(t.Gaps, a.cfg.Lacks.Unsampled)
	}
	return t
}

// unseen tells whether packets of an attempt were not observed.
func unseen(upstreams []trace.Upstream) bool {
	return slices.ContainsFunc(upstreams, func(u trace.Upstream) bool { return u.Exchange == nil || unseen(u.Upstreams) })
}

// upstreamCode returns the last response code from upstream that was seen.
func upstreamCode(upstreams []trace.Upstream) string {
	code := ""
	for i := range upstreams {
		if ex := upstreams[i].Exchange; ex != nil && ex.RCode != "" {
			code = ex.RCode
		}
	}
	return code
}

// firstRecord makes the record that is shown the first of those of the query, in
// whatever order they came.
func (a *Assembler) firstRecord(l *lookup) {
	for _, repeat := range a.repeats(l) {
		if repeat.query.Time.Before(l.query.Time) {
			a.unindex(repeat)
			l.query, repeat.query = repeat.query, l.query
			a.index(repeat)
		}
	}
}

// appendRepeats adds the upstream exchanges of retransmissions that the server
// worked on too. They have no attempt: only those of the record that is shown
// are numbered.
func (a *Assembler) appendRepeats(upstreams []trace.Upstream, l *lookup, gaps *[]string) []trace.Upstream {
	repeats := a.repeats(l)
	for _, repeat := range repeats {
		a.forget(repeat)
		for _, u := range a.legs(repeat, gaps, 0) {
			if u.Exchange != nil {
				u.Attempt = nil
				upstreams = append(upstreams, u)
			}
		}
	}
	if len(repeats) > 0 {
		*gaps = append(*gaps, fmt.Sprintf("the server recorded this query %d times; the first record is shown", len(repeats)+1))
	}
	return upstreams
}

// appendGaps says what is particular about how the parts of l came together.
func (l *lookup) appendGaps(t *trace.Trace) {
	if l.matched != "" {
		t.Gaps = append(t.Gaps, l.matched)
	}
	if l.exchange != nil && l.far == nil && l.query != nil {
		if ahead, said, apart := recordClock(l.exchange, l.query); apart {
			t.Gaps = append(t.Gaps, said)
			t.ClockOffset = trace.SecondsPtr(ahead)
		}
	}
	if l.evicted {
		t.Gaps = append(t.Gaps, "it was passed on before all of it had come: too many lookups were open at once")
	}
}

func (a *Assembler) fromExchange(t *trace.Trace, l *lookup) {
	ex := l.exchange
	if l.far != nil {
		var said string
		ex, t.ClockOffset, said = merge(l.exchange, l.far)
		t.Gaps = append(t.Gaps, said)
		t.Exchange = ex
	}
	t.Header = ex.Header
	t.QName, t.QType, t.RCode = ex.QName, ex.QType, ex.RCode
	t.Duration, t.Outcome = ex.Duration, ex.Outcome
	t.Client, t.Server = ex.Client, ex.Server
	if ex.LostEvents > 0 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("%d packets, of this lookup or of others, were lost by the tracer while it lasted: some may be missing here", ex.LostEvents))
	}
	if ex.SampledInKernel && ex.Incomplete() {
		t.Gaps = append(t.Gaps, "it was sampled in the kernel: packets that have another client's address, before or behind a translation, may be missing here")
	}
	t.Gaps = append(t.Gaps, a.cfg.Lacks.gaps(ex)...)
	if ex.PathOmitted > 0 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("%d more sightings of its packets were not kept", ex.PathOmitted))
	}
	if t.Query == nil && !ex.Connects() && a.servers.missed(ex) {
		t.Gaps = append(t.Gaps, trace.GapNotRecorded)
	}
	if a.servers.sends(l.exchange) {
		return // a server's query: what it asks for others makes no call of its own
	}
	if of, inferred, ok := a.calls.of(l.exchange, a.now); ok {
		t.Resolution, t.ResolutionJoin = of.String(), trace.JoinExact
		if inferred {
			t.ResolutionJoin = trace.JoinInferred
			t.Gaps = append(t.Gaps, fmt.Sprintf("that it is part of resolution %s is inferred from process, names and times", t.Resolution))
		}
	}
}

// fromRefresh makes a trace of work in the background: it has the trace id of
// the query that set it off, and no client. The response in its record is that of
// the query; what the upstream answered is in the upstream exchange.
func fromRefresh(t *trace.Trace, r *trace.Refresh) {
	t.Header = r.Header
	t.QName, t.QType = r.QName, r.QType
	t.Duration = trace.SecondsPtr(refreshTime(r))
	t.Outcome = trace.OutcomeUnanswered
	for i := range r.Upstreams {
		if r.Upstreams[i].Outcome == trace.OutcomeOK {
			t.Outcome = trace.OutcomeAnswered
		}
	}
	what := map[string]string{
		"prefetch": "a prefetch: the cache renewed a popular answer before it ran out",
		"stale":    "a refresh: the cache had answered with a stale answer",
	}[r.Cause]
	if what == "" {
		what = "work in the background"
	}
	t.Gaps = append(t.Gaps, fmt.Sprintf("no client waited for it: it is %s, set off by the lookup with the same trace id", what))
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
	if !l.recorded() {
		return a.inferredLegs(l, gaps, depth)
	}
	// All are matched before any is taken: a leg that is taken competes no more.
	_, attempts := l.attempts()
	found := make([]*lookup, len(attempts))
	for i := range attempts {
		found[i] = a.leg(l, &attempts[i], gaps)
	}
	upstreams := make([]trace.Upstream, 0, len(found))
	for i, leg := range found {
		u := trace.Upstream{Attempt: &attempts[i], Join: trace.JoinNone, Upstreams: []trace.Upstream{}}
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
	candidates := a.candidates(l, at, manyEquals)
	if len(candidates) == 0 {
		*gaps = append(*gaps, fmt.Sprintf("the packets of attempt %d%s were not observed", at.Attempt, to(at)))
		return nil
	}
	// l itself is forgotten and no longer counted among the claims.
	rivals := 0
	for _, c := range candidates {
		rivals = max(rivals, c.contested+a.claims(c, manyEquals)+a.claimsOf(l, c.exchange)-1)
	}
	if len(candidates) == 1 && rivals == 0 {
		return candidates[0]
	}
	for _, c := range candidates {
		c.contested++ // also when l is gone
	}
	*gaps = append(*gaps, fmt.Sprintf("attempt %d%s: %s fit and cannot be told apart", at.Attempt, to(at), equals(len(candidates), rivals+1)))
	return nil
}

// equals counts what fits alike.
func equals(exchanges, attempts int) string {
	count := func(n int, what string) string {
		switch {
		case n >= manyEquals:
			return fmt.Sprintf("%d or more %ss", manyEquals, what)
		case n == 1:
			return "one " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	return count(exchanges, "exchange") + " and " + count(attempts, "attempt") + " of the same question"
}

// to says where an attempt went; the grpc plugin does not always tell.
func to(at *trace.Attempt) string {
	if at.Address == "" {
		return ""
	}
	return " to " + at.Address
}

func (a *Assembler) inferredLegs(l *lookup, gaps *[]string, depth int) []trace.Upstream {
	// All are judged before any is taken: a leg that is taken claims no more.
	var own []*lookup
	ambiguous := 0
	for _, leg := range a.inferred(l) {
		if leg.contested > 0 || a.claims(leg, 1) > 0 {
			leg.contested++
			ambiguous++
			continue
		}
		own = append(own, leg)
	}
	upstreams := make([]trace.Upstream, 0, len(own))
	for _, leg := range own {
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
	if leg.far != nil {
		var said string
		u.Exchange, _, said = merge(leg.exchange, leg.far)
		*gaps = append(*gaps, said)
	}
	u.Upstreams = a.legs(leg, gaps, depth+1)
}

// gaps says what of an exchange is missing because of the kernel.
func (l Lacks) gaps(ex *trace.Exchange) (gaps []string) {
	if l.Process != "" && seenAtClient(ex) && (ex.Client == nil || ex.Client.PID == 0) {
		gaps = append(gaps, l.Process)
	}
	if l.Reason != "" && ex.Drop != nil && ex.Drop.Reason == "" {
		gaps = append(gaps, l.Reason)
	}
	return gaps
}
