package diagnose

import (
	"math"
	"time"

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
		Advice:  wayBackAdvice,
	}, (responseSeen(t) || recordedAnswer(t)) && t.Exchange.Milestones.Response.Arrived == trace.NotSeen
}

func responseSeen(t *trace.Trace) bool { return answered(t.Exchange) }

// answered tells whether a response was seen anywhere.
func answered(ex *trace.Exchange) bool {
	_, seen := ex.Last(trace.MessageResponse, math.MaxInt64)
	return seen
}

// watched is for how long after a query a response to it would be seen, whatever the
// tracer's --timeout is.
const watched = 7 * time.Second

// recordedAnswer tells whether the server's record says that it answered, in time for the
// response to be seen.
func recordedAnswer(t *trace.Trace) bool {
	_, unwatched := answeredUnwatched(t)
	return t.Query != nil && t.Query.Outcome != trace.OutcomeNoResponse && !unwatched
}

// answeredUnwatched returns how long after the query the server's record says that it
// answered, if nobody watched for the response any more.
func answeredUnwatched(t *trace.Trace) (after time.Duration, unwatched bool) {
	q, ex := t.Query, t.Exchange
	if q == nil || q.Outcome == trace.OutcomeNoResponse || q.DNS.Duration == nil {
		return 0, false
	}
	after = t.OnClientClock(q.Time).Add(q.DNS.Duration.Duration()).Sub(ex.Time)
	last, _ := ex.Last(trace.MessageQuery, math.MaxInt64)
	return after, !responseSeen(t) && after-last.Offset.Duration() > watched
}

const wayBackAdvice = "Follow it back from that place: `ip route get CLIENT`, a firewall (`nft list ruleset`), address translation (`conntrack -L`)."
