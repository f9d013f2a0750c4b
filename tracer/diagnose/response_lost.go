package diagnose

import (
	"math"

	"github.com/dnstrace/dnstrace/trace"
)

// responseLost finds a response that was sent and did not come to its client.
// Proof: it was seen on its way, or the server's record says that it answered; and
// it was not seen to arrive where the client is, though it would have been.
func responseLost(t *trace.Trace) (trace.Finding, bool) {
	last := trace.MessageQuery
	if responseSeen(t) {
		last = trace.MessageResponse
	}
	return trace.Finding{
		Code:    ResponseLost,
		Summary: "The server answered, and the response did not reach the client" + lastPlace(t, t.Exchange, last) + ".",
		Advice:  "Follow the way back from where the response was last seen: routes, firewalls, and address translation of replies.",
	}, (responseSeen(t) || recordedAnswer(t)) && t.Exchange.Milestones.Response.Arrived == trace.NotSeen
}

func responseSeen(t *trace.Trace) bool { return answered(t.Exchange) }

// answered tells whether a response was seen anywhere.
func answered(ex *trace.Exchange) bool {
	_, seen := ex.Last(trace.MessageResponse, math.MaxInt64)
	return seen
}

func recordedAnswer(t *trace.Trace) bool {
	return t.Query != nil && t.Query.Outcome != trace.OutcomeNoResponse
}
