package diagnose

import "github.com/dnstrace/dnstrace/trace"

// missing explains a client that got no response though the kernel reported no
// drop. How far the query and the response came, and what the server recorded,
// decide which finding it is.
func missing(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeUnanswered || fragmentLost(ex) {
		return nil
	}
	if f, ok := complaint(t); ok {
		f.Evidence = appendIncomplete(f.Evidence, ex)
		return []trace.Finding{f}
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
			f.Evidence = append(append(f.Evidence, lastSightings(ex)...), "the kernel reported no drop of it on this node", recorded(t))
			return []trace.Finding{f}
		}
	}
	return nil
}

// absences explain why there was no response, from the most telling to the least;
// the last one always has something to say.
var absences = []func(*trace.Trace) (trace.Finding, bool){goneEndpoint, responseLost, queryNeverArrived, noResponseSeen}

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
