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
		f.Evidence = append(f.Evidence, fmt.Sprintf("query %d left %s after the first", i+1, since(at)))
	}
	if n := responses(ex); n > 1 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d responses came back: no query was lost, the first response was late", n))
	}
	if t.Query != nil {
		f.Evidence = append(f.Evidence, recorded(t))
	}
	return []trace.Finding{f}
}

// sendings returns when the client sent the query, before it was answered.
func sendings(ex *trace.Exchange) []trace.Seconds {
	var sent []trace.Seconds
	for i := range ex.Path {
		if s := &ex.Path[i]; sameplace(s, &ex.Path[0]) && s.Offset <= *ex.Duration {
			sent = append(sent, s.Offset)
		}
	}
	return sent
}

// responses counts the responses that came back to where the query was first
// seen.
func responses(ex *trace.Exchange) int {
	n := 0
	for i := range ex.Path {
		s := &ex.Path[i]
		if s.Message == trace.MessageResponse && s.NetNS == ex.Path[0].NetNS && s.IfIndex == ex.Path[0].IfIndex && s.Direction != ex.Path[0].Direction {
			n++
		}
	}
	return n
}

func sameplace(a, b *trace.Sighting) bool {
	return a.Message == b.Message && a.NetNS == b.NetNS && a.IfIndex == b.IfIndex && a.Direction == b.Direction
}
