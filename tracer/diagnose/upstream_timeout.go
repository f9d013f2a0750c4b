package diagnose

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// upstreamTimeout finds upstreams that were silent, in a chain of servers at
// every step, each once. Proof: CoreDNS's attempt ended at its timeout, or the upstream
// query left, nothing came back, and the tracer lost nothing meanwhile.
func upstreamTimeout(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	of := ignoredTypes(m, t)
	for _, same := range silentUpstreams(t) {
		if slices.ContainsFunc(of, func(i ignored) bool { return i.has(same[0]) }) || reportedAsError(m, t, same[0]) {
			continue
		}
		f := trace.Finding{
			Code:    UpstreamTimeout,
			Summary: fmt.Sprintf("The upstream %s %s%s.", address(same[0]), didNotAnswer(same), costOf(t, same)),
			Advice:  "Ask it from the server's namespace (" + digAt(same[0]) + "); if it is gone for good, take it out of the server's upstreams.",
		}
		if maybeTLS(t, same) {
			f.Advice = "No plain query to it was seen. If `forward` has `tls://`: does it speak TLS at port 53 (`dig +tls -p 53`)? Else try `dig @ADDRESS`."
		}
		for _, u := range same {
			f.Evidence = append(f.Evidence, timeoutEvidence(t, u)...)
		}
		findings = append(findings, f)
	}
	return findings
}

// maybeTLS tells whether an upstream may have been asked over TLS at the port of plain DNS: none of
// the queries to it was seen, and the client's was.
func maybeTLS(t *trace.Trace, same []*trace.Upstream) bool {
	if t.Exchange == nil || incomplete(t.Exchange) {
		return false
	}
	for _, u := range same {
		if u.Exchange != nil || upstreamOf(u).Port() != portDNS {
			return false
		}
	}
	return true
}

// portDNS is that of plain DNS.
const portDNS = 53

// silentUpstreams returns the queries to upstreams that were silent, those to one of them
// together. A dropped one has a finding of its own, and so have an error, a late response, a
// lost fragment, a full queue and what was rejected.
func silentUpstreams(t *trace.Trace) (silent [][]*trace.Upstream) {
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		timedOut := u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeTimeout
		noAnswer := u.Exchange != nil && silentExchange(u.Exchange) && !incomplete(u.Exchange)
		failed := u.Exchange != nil && (u.Exchange.Outcome == trace.OutcomeDropped || tooLarge(u.Exchange) || noRoom(u.Exchange))
		ended := u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeError // before its timeout
		if u.Exchange == nil && u.Query != nil && len(u.Upstreams) > 0 {     // it took the query, and waited for others
			return
		}
		if _, late := lateBy(u); late || failed || ended || rejectedOf(u) != nil || !timedOut && !noAnswer {
			return
		}
		for i, same := range silent {
			if toSameUpstream(same[0], u) {
				silent[i] = append(same, u)
				return
			}
		}
		silent = append(silent, []*trace.Upstream{u})
	})
	return silent
}

// toSameUpstream tells whether two queries surely went to one upstream.
func toSameUpstream(u, v *trace.Upstream) bool {
	a, b := upstreamOf(u), upstreamOf(v)
	return a.IsValid() && a == b
}

// upstreamOf returns where a query went; the zero value if that is not reported.
func upstreamOf(u *trace.Upstream) netip.AddrPort {
	if u.Attempt == nil {
		return netip.AddrPortFrom(u.Exchange.ServerIP, u.Exchange.ServerPort)
	}
	addr, err := netip.ParseAddrPort(u.Attempt.Address)
	if err != nil {
		return netip.AddrPort{}
	}
	return addr
}

// silentExchange tells whether no response arrived for an upstream query, where it
// would have been seen.
func silentExchange(ex *trace.Exchange) bool {
	return ex.Outcome == trace.OutcomeUnanswered && ex.RCode == "" && ex.Milestones.Response.Arrived == trace.NotSeen
}

// didNotAnswer says how an upstream failed to answer what went to it.
func didNotAnswer(same []*trace.Upstream) string {
	how := howSilent(same[0].Exchange)
	for _, u := range same[1:] {
		if howSilent(u.Exchange) != how {
			how = "gave no answer"
		}
	}
	if len(same) > 1 {
		how = fmt.Sprintf("%s, %d times", how, len(same))
	}
	return how
}

// howSilent says how an upstream failed to answer a query.
func howSilent(ex *trace.Exchange) string {
	switch {
	case ex != nil && ex.RCode == "" && ex.Duration == nil && answered(ex):
		return "sent a response that did not reach the server"
	}
	return "did not answer"
}

func address(u *trace.Upstream) string {
	switch {
	case u.Attempt == nil:
		return upstreamOf(u).String() // as CoreDNS names it in an attempt
	case u.Attempt.Address == "":
		return fmt.Sprintf("of attempt %d (CoreDNS does not tell its address)", u.Attempt.Attempt)
	}
	return u.Attempt.Address
}

// cost says how long an attempt lasted, for which the lookup waited.
func cost(u *trace.Upstream) string {
	if u.Attempt == nil || u.Attempt.Duration == nil {
		return ""
	}
	return ", which cost the lookup " + since(*u.Attempt.Duration)
}

// costOf says it of several. In a chain servers wait at once, and go on when nobody waits
// for them any more. Nobody waits for what a cache renews.
func costOf(t *trace.Trace, same []*trace.Upstream) string {
	if t.Exchange == nil && t.Query == nil && t.Role == "" {
		return ""
	}
	if len(same) == 1 {
		return cost(same[0])
	}
	var total time.Duration
	for _, u := range same {
		if u.Attempt == nil || u.Attempt.Duration == nil {
			return ""
		}
		total += u.Attempt.Duration.Duration()
	}
	if whole, ok := clientTime(t); ok {
		total = min(total, whole)
	}
	return ", which cost the lookup " + took(total)
}

func timeoutEvidence(t *trace.Trace, u *trace.Upstream) []string {
	var evidence []string
	if at := u.Attempt; at != nil {
		evidence = append(evidence, "CoreDNS's "+endedAs(at))
	}
	ex := u.Exchange
	switch {
	case ex == nil:
		evidence = append(evidence, "its packets were not observed")
	default:
		evidence = append(evidence, fmt.Sprintf("its query with ID %#04x left from %s port %d and %s", ex.ID, ex.ClientIP, ex.ClientPort, cameBack(ex)))
		if s, ok := ex.Last(trace.MessageQuery, math.MaxInt64); ok {
			evidence = append(evidence, fmt.Sprintf("it was last seen %s in %s", how(&s), namespaceOf(t, &s.Device)))
		}
		if last, ok := lastSighting(t, ex, trace.MessageResponse); ok {
			evidence = append(evidence, last)
		}
		evidence = append(append(append(evidence, rejections(ex)...), icmpEvidence(t, ex)...), resetEvidence(ex)...)
		evidence = appendInferred(evidence, u)
	}
	return appendIncomplete(evidence, ex)
}

// cameBack says what came of an upstream query.
func cameBack(ex *trace.Exchange) string {
	switch {
	case answered(ex):
		return "no response arrived"
	case ex.ICMP != nil || ex.Reset != nil || len(ex.Rejected) > 0:
		return "no response came"
	case incomplete(ex) || ex.Milestones.Response.Arrived == trace.NotObservable:
		return "nothing was seen to come back"
	}
	return "nothing came back"
}
