package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// repeatsAfter is what no resolver waits less than before it asks again: what comes sooner was
// doubled on its way.
const repeatsAfter = 10 * time.Millisecond

// retransmission finds a lookup that was answered only after its client had
// asked again, and of which nothing else tells why. Proof: the same query, from the same
// port with the same DNS ID, left the client more than once before the response.
func retransmission(t *trace.Trace, others []trace.Finding) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeAnswered || ex.Transmissions < 2 || ex.Duration == nil || slices.ContainsFunc(others, tellsWhyRepeated) {
		return nil
	}
	sent := transmissions(ex, *ex.Duration)
	if len(sent) < 2 || sent[len(sent)-1].sent-sent[0].sent < trace.Seconds(repeatsAfter) || ex.Protocol == "tcp" && sent[0].cameTo(ex, ex.Milestones.Query.Arrived) {
		return nil
	}
	f := trace.Finding{
		Code:    Retransmission,
		Summary: fmt.Sprintf("The client asked again after %s without a response%s.", since(sent[0].until-sent[0].sent), lastPlace(t, sent[0].only(ex), trace.MessageQuery)),
		Advice:  "No packet was seen to be lost: the server answers later than the client asks again, or it was lost where nothing is observed.",
	}
	if first := sent[0]; !incomplete(ex) && ex.Milestones.Response.Left.Seen() && first.cameTo(ex, ex.Milestones.Query.Arrived) && !first.cameTo(ex, ex.Milestones.Response.Left) {
		f.Summary = fmt.Sprintf("The query came to the server, which had not answered when the client asked again after %s; the response came %s after the first.",
			since(first.until), since(*ex.Duration))
		f.Advice = "The server answers later than the client asks again, or discards what comes to it: see its log, its limits, its upstreams."
	}
	for i, w := range sent {
		if i > 0 {
			f.Evidence = append(f.Evidence, fmt.Sprintf("query %d was sent %s after the first", w.number, since(w.sent)))
		}
		if last, ok := lastSightingBefore(t, ex, trace.MessageQuery, w.until-1); ok && i+1 < len(sent) {
			f.Evidence = append(f.Evidence, "until then "+last)
		}
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("the response came %s after the first query", since(*ex.Duration)))
	if n := count(ex, ex.Milestones.Response.Arrived); n >= len(sent) && len(ex.Drops) == 0 && len(ex.Rejected) == 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d responses came back: no query was lost, the first response was late", n))
	}
	if t.Query != nil {
		f.Evidence = append(f.Evidence, recorded(t)...)
	}
	return []trace.Finding{f}
}

// tellsWhyRepeated tells whether a finding is a reason for a client to ask again: all are
// that tell of a loss or a wait, and not those of what an answer was, or of many lookups.
func tellsWhyRepeated(f trace.Finding) bool {
	switch f.Code {
	case CachedFailure, ConcurrencyLimit, OversizedResponse, RefusedByServer, TruncatedRetry, UpstreamError:
		return false
	}
	return true
}
