package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// upstreamError finds an upstream that answered with an error, or that could not
// be asked. Proof: the response code on the wire, or how CoreDNS's attempt ended.
// Where the upstream is an observed server whose own upstream failed, that is
// the finding.
func upstreamError(m *memory, t *trace.Trace) []trace.Finding {
	findings := upstreamErrors(m, t, t.Upstreams)
	if u, ok := forwarded(t); ok && len(findings) == 0 && errorCode(t.Query.RCode) && !failedFromCache(t.Query) {
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

// upstreamErrors finds those of a tree; of several that are alike, one says how often.
func upstreamErrors(m *memory, t *trace.Trace, upstreams []trace.Upstream) []trace.Finding {
	type like struct{ address, advice, rcode string }
	var found grouped[like]
	for i := range upstreams {
		u := &upstreams[i]
		deeper := upstreamErrors(m, t, u.Upstreams)
		found.findings = append(found.findings, deeper...)
		if len(deeper) > 0 || anyUpstream(u.Upstreams, silent) || failedFromCache(u.Query) {
			continue
		}
		f, ok := errorOf(m, t, u)
		if !ok {
			continue
		}
		k := like{address: address(u), advice: f.Advice}
		if u.Exchange != nil {
			k.rcode = u.Exchange.RCode
		}
		found.add(k, f)
	}
	return found.told(", %d times")
}

// manyQuotes is how much evidence a reader takes in.
const manyQuotes = 8

// shortened leaves out the middle of long evidence, and says so.
func shortened(evidence []string) []string {
	more := len(evidence) - manyQuotes
	if more <= 1 {
		return evidence
	}
	return append(evidence[:manyQuotes:manyQuotes], fmt.Sprintf("and %d more like these", more))
}

func errorOf(m *memory, t *trace.Trace, u *trace.Upstream) (trace.Finding, bool) {
	at, ex := u.Attempt, u.Exchange
	_, late := lateBy(u)
	limit, _ := limited(m, t, u)
	if late || limit > 0 || ex != nil && (ex.Outcome == trace.OutcomeDropped || tooLarge(ex)) || rejectedOf(u) != nil {
		return trace.Finding{}, false // that has a finding of its own
	}
	f := trace.Finding{Code: UpstreamError}
	switch {
	case ex != nil && errorCode(ex.RCode):
		f.Summary = fmt.Sprintf("The upstream %s answered %s%s.", address(u), ex.RCode, inWords(ex))
		f.Evidence = []string{fmt.Sprintf("its query with ID %#04x left from %s port %d, and the response had the code %s", ex.ID, ex.ClientIP, ex.ClientPort, ex.RCode)}
		if e := ex.ExtendedError; e != nil {
			f.Evidence = append(f.Evidence, "the upstream's own words: "+extended(e))
		}
		f.Evidence = append(f.Evidence, othersAnswered(m, u)...)
		f.Advice = adviceFor(ex.RCode)
	case at != nil && at.Outcome == trace.OutcomeError && ex != nil && reached(ex):
		f.Summary = fmt.Sprintf("The upstream %s was reached, and CoreDNS got no answer from it%s%s.", address(u), lastWords(at), cost(u))
		f.Advice = "See its log: it took the query, or the connection, and ended it. Then ask it from the server's namespace: `dig @ADDRESS NAME`."
	case at != nil && at.Outcome == trace.OutcomeError:
		f.Summary = fmt.Sprintf("The upstream %s could not be asked%s%s.", address(u), lastWords(at), cost(u))
		f.Advice = "See that something listens on that address and that the way there is open: `dig @ADDRESS NAME` from the server's namespace."
	case at != nil && at.Outcome == trace.OutcomeFailed && (ex == nil || !silentExchange(ex) || incomplete(ex)):
		f.Summary = fmt.Sprintf("The upstream %s gave no answer that CoreDNS could use%s.", address(u), cost(u))
		f.Advice = "Ask it from the server's namespace (`dig @ADDRESS NAME`). CoreDNS does not tell whether it was silent or refused."
	default:
		return f, false
	}
	if at != nil && at.Failed() {
		f.Evidence = append(f.Evidence, "CoreDNS's "+endedAs(at))
	}
	if ex != nil {
		f.Evidence = append(append(append(f.Evidence, icmpEvidence(t, ex)...), resetEvidence(ex)...), rejections(ex)...)
	}
	f.Evidence = appendInferred(f.Evidence, u)
	return f, true
}

// lastWords goes on with what CoreDNS says of an attempt, without what it was about: Go's
// errors have that in front.
func lastWords(at *trace.Attempt) string {
	if at.Error == "" {
		return ""
	}
	words := at.Error
	if i := strings.LastIndex(words, ": "); i >= 0 {
		words = words[i+2:]
	}
	return " (" + words + ")"
}

// reached tells whether a query was seen to come to its server.
func reached(ex *trace.Exchange) bool {
	return ex.Milestones.Query.Arrived.Seen() || ex.Milestones.Query.Read.Seen()
}

// othersAnswered says how the upstream treats other names meanwhile: of one that answers
// them, the name is broken.
func othersAnswered(m *memory, u *trace.Upstream) []string {
	seen := m.upstreams[address(u)]
	if seen == nil || u.Exchange == nil {
		return nil
	}
	answered, failed := m.count(seen, u.Exchange.Time)
	if answered == 0 {
		return nil
	}
	return []string{fmt.Sprintf("within a minute it answered %d of the latest %s that it was asked for, with one type or another", answered, english.Plural(answered+failed, "name", ""))}
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
		return "It does not serve this server or this name, or it has reached a limit (queries at once, or a second): its log says which."
	}
	if rcode != "SERVFAIL" {
		return declineAdvice(rcode)
	}
	return "Ask it directly (`dig @ADDRESS NAME`): the fault is there or further up (DNSSEC, the zone's servers); try another upstream."
}

// silent tells whether nothing came from an upstream.
func silent(u *trace.Upstream) bool {
	return u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeTimeout ||
		u.Exchange != nil && u.Exchange.Outcome == trace.OutcomeUnanswered
}
