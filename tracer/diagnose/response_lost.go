package diagnose

import "github.com/dnstrace/dnstrace/trace"

// responseLost finds a response that was sent and did not come to its client.
// Proof: it was seen on its way, or the server's record says that it answered, and
// the client's own host did not see it.
func responseLost(t *trace.Trace) (trace.Finding, bool) {
	last := trace.MessageQuery
	if responseSeen(t) {
		last = trace.MessageResponse
	}
	return trace.Finding{
		Code:    ResponseLost,
		Summary: "The server answered, and the response did not reach the client" + lastPlace(t.Exchange, last) + ".",
		Advice:  "Follow the way back from where the response was last seen: routes, firewalls, and address translation of replies.",
	}, responseSeen(t) || recordedAnswer(t)
}

func responseSeen(t *trace.Trace) bool {
	_, seen := lastSighting(t.Exchange, trace.MessageResponse)
	return seen
}

func recordedAnswer(t *trace.Trace) bool {
	return t.Query != nil && t.Query.Outcome != trace.OutcomeNoResponse
}
