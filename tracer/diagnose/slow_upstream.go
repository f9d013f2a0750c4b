package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// slowUpstream finds an upstream that answered, and took most of a slow lookup
// to do so; in a chain of servers the last one that did. Proof: the time from its query to
// its response on the wire or, where the packets were not seen, CoreDNS's own time of the
// attempt. One whose response came when the server had given up is slow, too. Whether it was
// the upstream or the way to it is reported only where the query was seen to arrive there and
// the response to leave.
func slowUpstream(_ *memory, t *trace.Trace) []trace.Finding {
	found := lateUpstreams(t)
	total, ok := clientTime(t)
	if !ok || total < slow {
		return found.findings
	}
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		d, ok := answerTime(u)
		if _, late := lateBy(u); late || !ok || d < slow || d < total/2 || waitedTime(u) >= d/2 {
			return
		}
		f := slowFinding(u, d, total)
		found.add(upstreamLike(u, &f), f)
	})
	return found.findings
}

// lateUpstreams finds upstreams whose response came when nobody waited for it any more.
func lateUpstreams(t *trace.Trace) (found grouped[byUpstream]) {
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		after, late := lateBy(u)
		if !late || closedUntold(t, u) || waitedTime(u) >= after.Duration()/2 {
			return // or it waited for its own upstreams
		}
		ex := u.Exchange
		waited := ""
		if u.Attempt != nil && u.Attempt.Duration != nil {
			waited = fmt.Sprintf(" CoreDNS waited %s.", since(*u.Attempt.Duration))
		}
		f := trace.Finding{
			Code:     SlowUpstream,
			Summary:  fmt.Sprintf("The response of the upstream %s came after %s, when the server had given up on it%s.", address(u), since(after), cost(u)),
			Evidence: []string{fmt.Sprintf("its query with ID %#04x left from %s port %d, and a response (%s) came %s later", ex.ID, ex.ClientIP, ex.ClientPort, orNoCode(ex.RCode), since(after))},
			Advice:   "Ask it from the server's namespace (`dig @ADDRESS NAME`); if slow there too, use a nearer one." + waited,
		}
		f.Evidence = append(f.Evidence, whose(u, after.Duration())...)
		if d := ex.LastDrop(); d != nil && ClientClosed(ex) {
			f.Evidence = append(f.Evidence, dropQuote(ex, d)+", in "+droppedWhere(t, d))
		}
		if at := u.Attempt; at != nil && at.Outcome != "" {
			f.Evidence = append(f.Evidence, "CoreDNS's "+endedAs(at))
		}
		f.Evidence = appendInferred(f.Evidence, u)
		found.add(upstreamLike(u, &f), inDoubt(f, ex))
	})
	return found
}

// closedUntold tells whether the response of an upstream found its server's socket closed, and
// nothing shows that the server had given up on it: it has no record, and never answered its
// client. It may as well have ended.
func closedUntold(t *trace.Trace, u *trace.Upstream) bool {
	return u.Attempt == nil && u.Exchange != nil && ClientClosed(u.Exchange) &&
		t.Query == nil && t.Exchange != nil && t.Exchange.Outcome == trace.OutcomeUnanswered && !responseSeen(t)
}

// lateBy returns when the response of an upstream came, counted from its query, if its
// server had closed the socket, or ended the attempt, before. One that timed out took no
// response: what came in its last moment was late, too.
func lateBy(u *trace.Upstream) (after trace.Seconds, late bool) {
	ex, at := u.Exchange, u.Attempt
	switch {
	case ex == nil:
		return 0, false
	case ClientClosed(ex):
		return ex.LastDrop().Offset, ex.RCode != ""
	case at == nil || at.Outcome == trace.OutcomeOK || at.Outcome == "" || at.Duration == nil || ex.Duration == nil || ex.Outcome != trace.OutcomeAnswered:
		return 0, false
	}
	return *ex.Duration, at.Outcome == trace.OutcomeTimeout || *ex.Duration > *at.Duration
}

// waitedTime is how long a server that keeps records waited for its own upstreams.
func waitedTime(u *trace.Upstream) (d time.Duration) {
	for i := range u.Upstreams {
		if at := u.Upstreams[i].Attempt; at != nil && at.Duration != nil {
			d += at.Duration.Duration()
		} else if own, ok := answerTime(&u.Upstreams[i]); ok {
			d += own
		}
	}
	return d
}

func slowFinding(u *trace.Upstream, d, total time.Duration) trace.Finding {
	f := trace.Finding{
		Code:    SlowUpstream,
		Summary: fmt.Sprintf("The upstream %s, or the way to it, took %s of the lookup's %s: which of the two cannot be seen here.", address(u), took(d), took(total)),
		Advice:  "Ask it from the server's namespace (`dig @ADDRESS NAME`) and from beside it; else use a nearer one, or `serve_stale` in `cache`.",
	}
	switch own, known := ownAnswerTime(u); {
	case known && own < d/2:
		f.Summary = fmt.Sprintf("The way to the upstream %s and back took %s of the lookup's %s; the upstream itself took %s.", address(u), took(d-own), took(total), took(own))
		f.Advice = "Look at the way, not at the upstream: a link, a queue or a tunnel that is slow or loses packets (`mtr`); or use a nearer one."
	case known:
		f.Summary = fmt.Sprintf("The upstream %s itself took %s of the lookup's %s to answer; the way there and back took %s.", address(u), took(own), took(total), took(d-own))
		f.Advice = "Look there at what it waits for, such as its own upstreams; else use another, or `serve_stale` in `cache`."
	}
	if ex := u.Exchange; ex != nil {
		f.Evidence = append(f.Evidence, fmt.Sprintf("its query with ID %#04x left from %s port %d, and the response (%s) came %s later", ex.ID, ex.ClientIP, ex.ClientPort, orNoCode(ex.RCode), took(d)))
	}
	f.Evidence = append(f.Evidence, whose(u, d)...)
	if at := u.Attempt; at != nil && at.Duration != nil {
		f.Evidence = append(f.Evidence, fmt.Sprintf("CoreDNS's %s took %s", attemptName(at), since(*at.Duration)))
	}
	f.Evidence = appendInferred(f.Evidence, u)
	if u.Attempt == nil || u.Attempt.Duration == nil {
		f = inDoubt(f, u.Exchange) // its first response may not have been seen
	}
	return f
}

// ownAnswerTime is what an upstream itself took of an answer: from the arrival of the query
// there to the departure of the response, on one clock; false where one of the two was not
// seen, or may have been another than the first.
func ownAnswerTime(u *trace.Upstream) (own time.Duration, known bool) {
	for _, ex := range u.Exchanges() {
		arrived, came := ex.Sighting(ex.Milestones.Query.Arrived)
		left, went := ex.Sighting(ex.Milestones.Response.Left)
		if incomplete(ex) || !came || !went || arrived.Node != left.Node || left.Offset < arrived.Offset {
			return 0, false
		}
		own += (left.Offset - arrived.Offset).Duration()
	}
	return own, u.Exchange != nil
}

// whose quotes which part of the time to an answer was the upstream's and which the way's,
// or says that it is not known.
func whose(u *trace.Upstream, d time.Duration) []string {
	own, known := ownAnswerTime(u)
	if !known {
		return []string{"it was not seen when the query arrived at the upstream and when the response left: whether it or the way to it took the time is not known"}
	}
	return []string{fmt.Sprintf("at the upstream, the response left %s after the query had arrived; the way there and back took the other %s", took(own), took(d-own))}
}

// clientTime is what the lookup took, for whoever waited for it: no one waits
// for a refresh.
func clientTime(t *trace.Trace) (time.Duration, bool) {
	switch {
	case t.Exchange != nil && t.Exchange.Duration != nil:
		return t.Exchange.Duration.Duration(), true
	case t.Query != nil && t.Query.DNS.Duration != nil:
		return t.Query.DNS.Duration.Duration(), true
	}
	return 0, false
}

// answerTime is what an upstream took, from the first query of an attempt to the last
// response.
func answerTime(u *trace.Upstream) (time.Duration, bool) {
	if ex := u.Exchange; ex != nil {
		if ex.Outcome != trace.OutcomeAnswered || ex.Duration == nil {
			return 0, false
		}
		return ex.Time.Sub(u.Exchanges()[0].Time) + ex.Duration.Duration(), true
	}
	if at := u.Attempt; at != nil && at.Outcome == trace.OutcomeOK && at.Duration != nil {
		return at.Duration.Duration(), true
	}
	return 0, false
}

// appendInferred says where a part of the trace is not proven to belong to it.
func appendInferred(evidence []string, u *trace.Upstream) []string {
	if u.Exchange != nil && u.Join == trace.JoinInferred {
		return append(evidence, "that it belongs to this lookup is inferred from address, question and time")
	}
	return evidence
}
