package diagnose

import "github.com/dnstrace/dnstrace/trace"

// missing explains a client that got no response though no drop kept it from one.
// How far the query and the response came, and what the server recorded, decide
// which finding it is.
func missing(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || !unexplained(ex) || tooLarge(ex) || noRoom(ex) {
		return nil
	}
	for _, refusal := range refusals {
		if f, ok := refusal(t); ok {
			f.Evidence = appendIncomplete(f.Evidence, ex)
			return []trace.Finding{f}
		}
	}
	if incomplete(ex) {
		return []trace.Finding{unknown(m, t)}
	}
	if ex.Connects() {
		return []trace.Finding{noConnection(m, t)}
	}
	for _, explain := range absences {
		if f, ok := explain(t); ok {
			f.Evidence = append(f.Evidence, noEndpoints(ex)...)
			f.Evidence = append(append(f.Evidence, lastSightings(t, ex)...), resetEvidence(ex)...)
			f.Evidence = append(append(f.Evidence, dropsElsewhere(t, ex)...), recorded(t)...)
			return []trace.Finding{f}
		}
	}
	return nil
}

// unexplained tells whether a client got no response, and no drop is the reason.
func unexplained(ex *trace.Exchange) bool {
	switch ex.Outcome {
	case trace.OutcomeUnanswered:
		return true
	case trace.OutcomeDropped:
		return len(losses(ex)) == 0 && !ClientClosed(ex) && !connectionClosed(ex)
	}
	return false
}

// refusals explain a query that somebody refused to deliver or to take, or that its client
// took back.
var refusals = []func(*trace.Trace) (trace.Finding, bool){icmpError, refused, takenBack}

// absences explain why there was no response, from the most telling to the least;
// the last one always has something to say.
var absences = []func(*trace.Trace) (trace.Finding, bool){
	rejectedResponse, goneEndpoint, responseLost, queryNeverArrived, neverRead, noResponseSeen,
}

// lastSightings quotes how far the query and its response came.
func lastSightings(t *trace.Trace, ex *trace.Exchange) []string {
	var evidence []string
	for _, message := range []string{trace.MessageQuery, trace.MessageResponse} {
		if last, ok := lastSighting(t, ex, message); ok {
			evidence = append(evidence, last)
		}
	}
	return evidence
}

// dropsElsewhere says what the kernel reported of packets that did not keep the
// client from its response.
func dropsElsewhere(t *trace.Trace, ex *trace.Exchange) []string {
	if len(ex.Drops) == 0 {
		return []string{"the kernel reported no drop of it on this node"}
	}
	return otherDrops(t, ex, nil)
}
