package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// rejectedResponse is what is known of a client that got a response which it could
// not take for its answer, and no other.
func rejectedResponse(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	if len(ex.Rejected) == 0 {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code:     NoResponseSeen,
		Summary:  fmt.Sprintf("The client could not take the response that came (%s)%s.", whyRejected(&ex.Rejected[len(ex.Rejected)-1]), lastPlace(t, ex, trace.MessageQuery)),
		Evidence: rejections(ex),
		Advice:   "See who sent that response: a translation that was not undone, a server with several addresses, or one that answers wrongly.",
	}, true
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
