package diagnose

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// upstreamError finds an upstream that answered with an error, or that could not
// be asked. Proof: the response code on the wire, or how CoreDNS's attempt ended.
// Where the upstream is an observed server whose own upstream failed, that is
// the finding.
func upstreamError(_ *memory, t *trace.Trace) []trace.Finding {
	findings := upstreamErrors(nil, t.Upstreams)
	if u, ok := forwarded(t); ok && len(findings) == 0 && errorCode(t.Query.RCode) {
		findings = append(findings, trace.Finding{
			Code:    UpstreamError,
			Summary: fmt.Sprintf("The upstream %s answered %s.", address(u), t.Query.RCode),
			Evidence: []string{
				fmt.Sprintf("CoreDNS's %s ended as %s, and %s passed the answer on: rcode %s", attemptName(u.Attempt), u.Attempt.Outcome, t.Query.AnsweredBy, t.Query.RCode),
				"its packets were not observed",
			},
			Advice: adviceFor(t.Query.RCode),
		})
	}
	return findings
}

// forwarded returns the upstream whose answer CoreDNS passed on, if only its record
// tells of it.
func forwarded(t *trace.Trace) (*trace.Upstream, bool) {
	if t.Query == nil || !slices.Contains(forwarders, t.Query.AnsweredBy) || len(t.Upstreams) == 0 {
		return nil, false
	}
	u := &t.Upstreams[len(t.Upstreams)-1]
	return u, u.Exchange == nil && u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeOK
}

func upstreamErrors(findings []trace.Finding, upstreams []trace.Upstream) []trace.Finding {
	for i := range upstreams {
		u := &upstreams[i]
		deeper := upstreamErrors(nil, u.Upstreams)
		findings = append(findings, deeper...)
		if len(deeper) > 0 || anyUpstream(u.Upstreams, silent) {
			continue
		}
		if f, ok := errorOf(u); ok {
			findings = append(findings, f)
		}
	}
	return findings
}

func errorOf(u *trace.Upstream) (trace.Finding, bool) {
	at, ex := u.Attempt, u.Exchange
	if ex != nil && ex.Outcome == trace.OutcomeDropped || rejectedOf(u) != nil {
		return trace.Finding{}, false // that has a finding of its own
	}
	f := trace.Finding{Code: UpstreamError}
	switch {
	case ex != nil && errorCode(ex.RCode):
		f.Summary = fmt.Sprintf("The upstream %s answered %s.", address(u), ex.RCode)
		f.Evidence = []string{fmt.Sprintf("its query with ID %#04x left from %s port %d, and the response had the code %s", ex.ID, ex.ClientIP, ex.ClientPort, ex.RCode)}
		if e := ex.ExtendedError; e != nil {
			f.Evidence = append(f.Evidence, "the upstream's own words: "+extended(e))
		}
		f.Advice = adviceFor(ex.RCode)
	case at != nil && at.Outcome == trace.OutcomeError:
		f.Summary = fmt.Sprintf("The upstream %s could not be asked%s.", address(u), cost(u))
		f.Advice = "See that something listens on that address and that the way there is open: `dig @ADDRESS NAME` from the server's namespace."
	case at != nil && at.Outcome == trace.OutcomeFailed && (ex == nil || !silentExchange(ex)):
		f.Summary = fmt.Sprintf("The upstream %s gave no answer that CoreDNS could use%s.", address(u), cost(u))
		f.Advice = "Ask it from the server's namespace (`dig @ADDRESS NAME`). CoreDNS does not tell whether it was silent or refused."
	default:
		return f, false
	}
	if at != nil && at.Outcome != trace.OutcomeOK {
		f.Evidence = append(f.Evidence, "CoreDNS's "+endedAs(at))
	}
	if ex != nil {
		f.Evidence = append(append(append(f.Evidence, icmpEvidence(ex)...), resetEvidence(ex)...), rejections(ex)...)
	}
	f.Evidence = appendInferred(f.Evidence, u)
	return f, true
}

// errorCode tells codes that say the server failed; that a name does not exist
// is an answer.
func errorCode(rcode string) bool {
	switch rcode {
	case "", "NOERROR", "NXDOMAIN":
		return false
	}
	return true
}

func adviceFor(rcode string) string {
	if rcode == "REFUSED" {
		return "The upstream does not serve this server or this name: see its access list, and whether it is meant to resolve for others."
	}
	return "Ask it directly (`dig @ADDRESS NAME`): the fault is there or further up (DNSSEC, the zone's servers); try another upstream."
}

// silent tells whether nothing came from an upstream.
func silent(u *trace.Upstream) bool {
	return u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeTimeout ||
		u.Exchange != nil && u.Exchange.Outcome == trace.OutcomeUnanswered
}
