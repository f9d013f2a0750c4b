package assemble

import (
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// build makes the trace of a lookup of which all parts are known.
func (a *Assembler) build(l *lookup) {
	t := &a.trace
	*t = trace.Trace{Exchange: l.exchange, Query: l.query, Diagnosis: []trace.Finding{}, Gaps: []string{}, Replaces: l.again}
	if l.exchange != nil {
		a.fromExchange(t, l)
	}
	alone := l.from != nil && !l.seen() && a.cfg.Limitations.Unsampled == ""
	if l.query != nil {
		fromQuery(t, l.query)
		if l.from != nil {
			l.query.Unverified = alone
		}
		alone = l.query.Unverified
	} else if l.claim != nil {
		t.Query = l.claim
		t.Gaps = append(t.Gaps, "whether the process that sent the server's record is the server is unknown: nothing is concluded from the record")
	}
	if l.refresh != nil {
		fromRefresh(t, l.refresh)
	}
	t.V, t.Record = trace.Version, trace.KindTrace
	if alone {
		t.Upstreams = []trace.Upstream{}
		t.Gaps = append(t.Gaps, "no packet of it was seen, nor of what its server asked: it is what a server's record says alone, and nothing is concluded from it")
	} else {
		t.Upstreams = a.upstreams(l, &t.Gaps, 0)
		t.Gaps = once(t.Gaps)
	}
	if l.refresh != nil {
		t.RCode = upstreamCode(t.Upstreams)
	}
	l.appendGaps(t)
	t.Stopped = a.stopped(l)
	if unsampled := a.cfg.Limitations.Unsampled; unsampled != "" && (t.Exchange == nil || unseen(t.Upstreams)) {
		t.Gaps = append(t.Gaps, unsampled)
	}
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

// appendGaps says what is particular about how the parts of l came together.
func (l *lookup) appendGaps(t *trace.Trace) {
	if l.matched != "" {
		t.Gaps = append(t.Gaps, l.matched)
	}
	if l.exchange != nil && l.serverExchange == nil && l.query != nil {
		if ahead, said, apart := recordClock(l.exchange, l.query); apart {
			t.Gaps = append(t.Gaps, said)
			t.ClockOffset = trace.SecondsPtr(ahead)
		}
	}
	if n := len(l.records); n > 1 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("the server recorded this query %d times; the first record is shown", n))
	}
	if l.lost {
		t.Gaps = append(t.Gaps, "it was passed on before, with parts that are not known any more")
	}
	if l.evicted {
		t.Gaps = append(t.Gaps, "it was passed on before all of it had come: too many lookups were open at once")
	}
}

func (a *Assembler) fromExchange(t *trace.Trace, l *lookup) {
	ex := l.exchange
	if l.serverExchange != nil {
		var said string
		ex, t.ClockOffset, said = merge(l.exchange, l.serverExchange)
		t.Gaps = append(t.Gaps, said)
		t.Exchange = ex
	}
	t.Header = ex.Header
	t.QName, t.QType, t.RCode = ex.QName, ex.QType, ex.RCode
	t.Duration, t.Outcome = ex.Duration, ex.Outcome
	t.Client, t.Server = ex.Client, ex.Server
	if ex.LostEvents > 0 {
		t.Gaps = append(t.Gaps, lostPackets(ex.LostEvents)+" lost by the tracer while it lasted: some may be missing here")
	}
	if ex.SampledInKernel && ex.Incomplete() {
		t.Gaps = append(t.Gaps, "it was sampled in the kernel: packets that have another client's address, before or behind a translation, may be missing here")
	}
	t.Gaps = append(t.Gaps, a.cfg.Limitations.gaps(ex)...)
	if ex.PathOmitted > 0 {
		t.Gaps = append(t.Gaps, fmt.Sprintf("%d more sightings of its packets were not kept", ex.PathOmitted))
	}
	if a.servers.isServer(&l.sender) {
		t.Role = trace.RoleUpstream
	} else if t.Query == nil && a.servers.missed(ex, a.now) {
		t.Gaps = append(t.Gaps, trace.GapNotRecorded)
	}
	if a.servers.sends(&l.sender) {
		return // a server's query: what it asks for others makes no call of its own
	}
	c, ok := a.calls.of(l.caller, l.exchange, func(until time.Time) []*trace.Exchange { return a.kin(l.exchange, until) }, a.now)
	if !ok {
		return
	}
	t.Resolution, t.ResolutionJoin = c.id.String(), trace.JoinExact
	if c.inferred {
		t.ResolutionJoin = trace.JoinInferred
		t.Gaps = append(t.Gaps, fmt.Sprintf("that it is part of resolution %s is inferred from process, names and times", t.Resolution))
	}
	for _, other := range c.again {
		a.reportAgain(other)
	}
}

// kin returns what is under way, begun up to a time, and may be of one call with ex.
func (a *Assembler) kin(ex *trace.Exchange, until time.Time) []*trace.Exchange {
	if a.cfg.Open == nil {
		return nil
	}
	return a.cfg.Open.Kin(ex, ex.Time.Add(-time.Duration(retryLast)), until)
}

// reportAgain passes a lookup on once more, if it is remembered: the record that was passed
// on does not name the call that it turned out to be of.
func (a *Assembler) reportAgain(of reportedLookup) {
	for l := range a.flows.of(of.id.Flow()) {
		if l.exchange != nil && l.parent == nil && l.exchange.Time.UnixNano() == of.start {
			a.revive(l)
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

// upstreams returns what a lookup's server asked upstream: each attempt of its record,
// and upstream queries that have none.
func (a *Assembler) upstreams(l *lookup, gaps *[]string, depth int) []trace.Upstream {
	upstreams := make([]trace.Upstream, 0, len(l.slots)+len(l.inferred))
	if depth >= maxDepth {
		return upstreams
	}
	for i, s := range l.slots {
		if s.dials() {
			continue // with the one before
		}
		got, exact := s.got, s.exact
		if i+1 < len(l.slots) && l.slots[i+1].at == s.at {
			got, exact = l.slots[i+1].with(got, exact)
		}
		// Only the attempts of the record that is shown are numbered.
		shown := s.record == l.query
		if len(got) == 0 && shown {
			*gaps = append(*gaps, fmt.Sprintf("the packets of attempt %d%s were not observed", s.at.Attempt, to(s.at)))
		}
		if len(got) == 0 && !shown {
			continue
		}
		var u trace.Upstream
		if len(got) == 0 && s.inner != nil {
			u = a.innerUpstream(s, gaps, depth)
		} else {
			u = a.upstream(got, gaps, depth)
			u.Join = joinOf(len(got), exact)
		}
		if shown {
			u.Attempt = s.at
		}
		if u.Join == trace.JoinInferred && u.Exchange == nil {
			*gaps = append(*gaps, fmt.Sprintf("that the record behind attempt %d%s is of its query is inferred from the order of what was asked at that time", s.at.Attempt, to(s.at)))
		} else if u.Join == trace.JoinInferred {
			*gaps = append(*gaps, fmt.Sprintf("that the packets of attempt %d%s are its own is inferred from the order of what was asked at that time", s.at.Attempt, to(s.at)))
		}
		upstreams = append(upstreams, u)
	}
	for _, x := range l.inferred {
		u := a.upstream([]*lookup{x}, gaps, depth)
		u.Join = trace.JoinInferred
		upstreams = append(upstreams, u)
	}
	if l.ambiguous > 0 {
		*gaps = append(*gaps, english.Plural(l.ambiguous, "upstream exchange", "")+" may be of another lookup of the same question, which the server had at the same time")
	}
	return upstreams
}

// once leaves out what was said before, of another server of a chain.
func once(gaps []string) []string {
	var said []string
	for _, g := range gaps {
		if !slices.Contains(said, g) {
			said = append(said, g)
		}
	}
	return said
}

func joinOf(exchanges int, exact bool) string {
	switch {
	case exchanges == 0:
		return trace.JoinNone
	case exact:
		return trace.JoinExact
	}
	return trace.JoinInferred
}

// with returns the exchanges of an attempt, those without a question included, and whether
// they are exact.
func (s *slot) with(got []*lookup, exact bool) ([]*lookup, bool) {
	if len(s.got) == 0 {
		return got, exact
	}
	exact = s.exact && (exact || len(got) == 0)
	all := append(slices.Clone(got), s.got...)
	slices.SortStableFunc(all, func(x, y *lookup) int { return x.exchange.Time.Compare(y.exchange.Time) })
	return all, exact
}

// upstream makes the entry of an attempt, of its exchanges in order of time.
func (a *Assembler) upstream(got []*lookup, gaps *[]string, depth int) trace.Upstream {
	u := trace.Upstream{Upstreams: []trace.Upstream{}}
	for i, x := range got {
		ex := x.exchange
		if x.serverExchange != nil {
			var said string
			ex, _, said = merge(x.exchange, x.serverExchange)
			*gaps = append(*gaps, said)
		}
		if i < len(got)-1 {
			u.Earlier = append(u.Earlier, ex)
		} else {
			u.Exchange = ex
		}
		if x.query != nil {
			u.Query = x.query
		}
		u.Upstreams = append(u.Upstreams, a.upstreams(x, gaps, depth+1)...)
	}
	return u
}

// to says where an attempt went; the grpc plugin does not always tell.
func to(at *trace.Attempt) string {
	if at.Address == "" {
		return ""
	}
	return " to " + at.Address
}

// gaps says what of an exchange is missing because of the kernel.
func (l Limitations) gaps(ex *trace.Exchange) (gaps []string) {
	if l.Process != "" && ex.AtClient() && (ex.Client == nil || ex.Client.PID == 0) {
		gaps = append(gaps, l.Process)
	}
	if drop := ex.LastDrop(); l.Reason != "" && drop != nil && drop.Reason == "" {
		gaps = append(gaps, l.Reason)
	}
	return gaps
}

func lostPackets(n uint64) string {
	were := "were"
	if n == 1 {
		were = "was"
	}
	return english.Plural(int(n), "packet", "") + ", of this lookup or of others, " + were
}
