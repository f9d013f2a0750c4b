package diagnose

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// rejectedResponse finds a client that got a response which it could not take for its
// answer, and no other. Proof: it came to the client's namespace, and its ID or question is
// not that of the query, or it is no whole message. One from another source has a code of
// its own.
func rejectedResponse(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	if len(ex.Rejected) == 0 {
		return trace.Finding{}, false
	}
	if r := fromElsewhere(ex); r != nil {
		return unexpectedSource(ex, r, "the client", "The client"), true
	}
	return trace.Finding{
		Code:     ResponseRejected,
		Summary:  fmt.Sprintf("A response came, and the client rejected it (%s)%s.", whyRejected(&ex.Rejected[len(ex.Rejected)-1]), lastPlace(t, ex, trace.MessageQuery)),
		Evidence: rejections(ex),
		Advice:   "See who sent that response: a translation that was not undone, a server with several addresses, or one that answers wrongly.",
	}, true
}

// rejectedUpstream finds upstreams whose responses their server could not take. Proof: as
// above. What CoreDNS makes of them, a timeout, FORMERR, SERVFAIL or a truncated answer,
// does not tell.
func rejectedUpstream(_ *memory, t *trace.Trace) []trace.Finding {
	var found grouped[byUpstream]
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		ex := rejectedOf(u)
		if ex == nil {
			return
		}
		f := trace.Finding{
			Code:     ResponseRejected,
			Summary:  fmt.Sprintf("The server rejected what the upstream %s answered (%s)%s.", address(u), whyRejected(&ex.Rejected[len(ex.Rejected)-1]), cost(u)),
			Evidence: []string{fmt.Sprintf("its query with ID %#04x left from %s port %d and no response to it could be taken", ex.ID, ex.ClientIP, ex.ClientPort)},
			Advice:   "Ask it from the server's namespace (`dig @ADDRESS NAME`): it answers wrongly, or somebody else answers for it.",
		}
		if r := fromElsewhere(ex); r != nil {
			source := unexpectedSource(ex, r, "the server", "The server")
			f.Code, f.Summary, f.Advice = source.Code, strings.TrimSuffix(source.Summary, ".")+cost(u)+".", source.Advice
		}
		if at := u.Attempt; at != nil {
			f.Evidence = append(f.Evidence, "CoreDNS's "+endedAs(at))
		}
		f.Evidence = appendIncomplete(appendInferred(append(f.Evidence, rejections(ex)...), u), ex)
		found.add(upstreamLike(u, &f), f)
	})
	return found.findings
}

// rejectedOf returns the exchange that ended an attempt if nothing came that its server
// could take; nil otherwise.
func rejectedOf(u *trace.Upstream) *trace.Exchange {
	if ex := u.Exchange; ex != nil && ex.Outcome == trace.OutcomeUnanswered && ex.RCode == "" && len(ex.Rejected) > 0 {
		return ex
	}
	return nil
}

// whyRejected says why a receiver could not take a response.
func whyRejected(r *trace.Rejection) string {
	switch r.Why {
	case trace.RejectedID:
		return "wrong DNS ID"
	case trace.RejectedQuestion:
		return "wrong question"
	case trace.RejectedAddress:
		return "wrong source address"
	case trace.RejectedPort:
		return "wrong source port"
	case trace.RejectedMalformed:
		return "malformed"
	case trace.RejectedIncomplete:
		return "incomplete"
	}
	return r.Why
}

// rejections quotes the responses that could not be taken.
func rejections(ex *trace.Exchange) []string {
	var evidence []string
	for i := range ex.Rejected {
		r := &ex.Rejected[i]
		code := ""
		if r.RCode != "" {
			code = " (" + r.RCode + ")"
		}
		evidence = append(evidence, fmt.Sprintf("a response of %d bytes%s came from %s %s after the query and was not taken: %s", r.Size, code, r.Src, since(r.Offset), whyRejected(r)))
	}
	return evidence
}
