package diagnose

import (
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
		f.Evidence = appendLost(f.Evidence, ex)
		return []trace.Finding{f}
	}
	if packetsLost(ex) {
		return []trace.Finding{unknown(m, t)}
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
	return []trace.Finding{f}
}

// unknown is what is known of a lookup without a response if packets of it may be
// missing: not even that there was none.
func unknown(m *memory, t *trace.Trace) trace.Finding {
	ex := t.Exchange
	f := trace.Finding{
		Code:     NoResponseSeen,
		Summary:  "No response was seen, but the tracer lost packets in this time: there may have been one.",
		Evidence: appendLost(lastSightings(ex), ex),
		Advice:   "Do not act on this one alone: ask the client whether it was answered, and look at lookups without lost packets. `dnstrace_lost_events_total` that rises says that this node's tracer is overrun.",
	}
	if q := t.Query; q != nil && q.Outcome != trace.OutcomeNoResponse {
		f.Summary = "The server answered, but the tracer lost packets in this time: whether the client got it is not known."
	}
	if ex.NAT != nil && ex.NAT.Endpoint != nil {
		f.Evidence = append(f.Evidence, listed(ex)...)
	}
	if ex.Connects() {
		f.Evidence = append(f.Evidence, whyConnect(m, t)...)
		return f
	}
	f.Evidence = append(f.Evidence, recorded(t))
	return f
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
