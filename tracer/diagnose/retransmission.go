package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// retransmission finds a lookup that was answered only after its client had
// asked again. Proof: the same query, from the same port with the same DNS ID,
// left the client more than once before the response.
func retransmission(_ *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeAnswered || ex.Transmissions < 2 || ex.Duration == nil {
		return nil
	}
	sent := sendings(ex)
	if len(sent) < 2 {
		return nil
	}
	f := trace.Finding{
		Code:    Retransmission,
		Summary: fmt.Sprintf("The client asked %d times before the response came, %s after the first.", len(sent), since(*ex.Duration)),
		Advice:  "If a packet was lost, a finding above says where; if the server was slow, the client asks again sooner than it answers.",
	}
	for i, at := range sent {
		f.Evidence = append(f.Evidence, fmt.Sprintf("query %d was sent %s after the first", i+1, since(at)))
	}
	if n := responses(ex); n >= len(sent) {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d responses came back: no query was lost, the first response was late", n))
	}
	if t.Query != nil {
		f.Evidence = append(f.Evidence, recorded(t)...)
	}
	return []trace.Finding{f}
}

// sendings returns when the client sent the query, before it was answered: each
// time that it was seen where it was seen first.
func sendings(ex *trace.Exchange) []trace.Seconds {
	var sent []trace.Seconds
	left, seen := ex.Sighting(ex.Milestones.Query.Left)
	if !seen && ex.Path.Len() > 0 {
		left = ex.Path.At(0) // where it came into what is observed
	}
	for _, s := range ex.Path.All() {
		if alike(&s, &left) && s.Offset <= *ex.Duration {
			sent = append(sent, s.Offset)
		}
	}
	return sent
}

// responses counts the responses that came to the client: each that was seen where
// the first one arrived.
func responses(ex *trace.Exchange) int {
	n := 0
	arrived, seen := ex.Sighting(ex.Milestones.Response.Arrived)
	for _, s := range ex.Path.All() {
		if seen && alike(&s, &arrived) {
			n++
		}
	}
	return n
}

// alike tells whether two sightings are of the same message, at the same device or
// socket, in the same direction.
func alike(a, b *trace.Sighting) bool {
	return a.Message == b.Message && a.Device == b.Device && a.Direction == b.Direction
}
