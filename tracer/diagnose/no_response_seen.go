package diagnose

import "github.com/dnstrace/dnstrace/trace"

// noResponseSeen finds a client that got no response, and nothing that tells why.
// Proof: its query was seen, and no response to it anywhere on this node.
func noResponseSeen(t *trace.Trace) (trace.Finding, bool) {
	return trace.Finding{
		Code:    NoResponseSeen,
		Summary: "No response was seen, and nothing shows why" + lastPlace(t.Exchange, trace.MessageQuery) + ".",
		Advice:  "The server, or what lies behind the place where the query was last seen, is the next place to look.",
	}, true
}

// unknown is what is known of a lookup without a response if packets of it may be
// missing: not even that there was none.
func unknown(m *memory, t *trace.Trace) trace.Finding {
	ex := t.Exchange
	f := trace.Finding{
		Code:     NoResponseSeen,
		InDoubt:  true,
		Summary:  "No response was seen, but the tracer lost packets in this time: there may have been one.",
		Evidence: appendIncomplete(lastSightings(ex), ex),
		Advice:   "Do not act on this one alone: ask the client, and look at lookups without lost packets. Does `dnstrace_lost_events_total` rise?",
	}
	if recordedAnswer(t) {
		f.Summary = "The server answered, but the tracer lost packets in this time: whether the client got it is not known."
	} else if responseSeen(t) {
		f.Summary = "A response was seen on its way, but the tracer lost packets in this time: whether the client got it is not known."
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
