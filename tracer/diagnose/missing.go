package diagnose

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// missing explains a client that got no response though the kernel reported no
// drop. How far the query and the response came, and what the server recorded,
// decide which finding it is.
func missing(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeUnanswered || fragmentLost(ex) {
		return nil
	}
	if f, ok := complaint(t); ok {
		return []trace.Finding{f}
	}
	if ex.Connects() {
		return []trace.Finding{noConnection(m, t)}
	}
	_, responseSeen := lastSighting(ex, trace.MessageResponse)
	f, gone := goneEndpoint(t)
	switch {
	case gone && !responseSeen && t.Query == nil:
	case responseSeen || t.Query != nil && t.Query.Outcome != trace.OutcomeNoResponse:
		f = trace.Finding{
			Code:    ResponseLost,
			Summary: "The server answered, and the response did not reach the client.",
			Advice:  "Follow the way back from where the response was last seen: routes, firewalls, and address translation of replies.",
		}
	case t.Query == nil && notRecorded(t):
		f = trace.Finding{
			Code:    QueryNeverArrived,
			Summary: "The query did not reach CoreDNS.",
			Advice:  "Follow the way of the query from where it was last seen; what lies beyond is not observed on this node.",
		}
	default:
		f = trace.Finding{
			Code:    NoResponseSeen,
			Summary: "No response was seen, and nothing shows why.",
			Advice:  "The server, or what lies behind the place where the query was last seen, is the next place to look.",
		}
	}
	f.Evidence = append(f.Evidence, noEndpoints(ex)...)
	f.Evidence = append(append(f.Evidence, lastSightings(ex)...), "the kernel reported no drop of it on this node", recorded(t))
	if ex.LostEvents > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d events were lost on this node meanwhile: what was seen may not be all", ex.LostEvents))
	}
	return []trace.Finding{f}
}

// lastSightings quotes how far the query and its response came.
func lastSightings(ex *trace.Exchange) []string {
	var evidence []string
	for _, message := range []string{trace.MessageQuery, trace.MessageResponse} {
		if last, ok := lastSighting(ex, message); ok {
			evidence = append(evidence, last)
		}
	}
	return evidence
}

func notRecorded(t *trace.Trace) bool { return slices.Contains(t.Gaps, trace.GapNotRecorded) }
