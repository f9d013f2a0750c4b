package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// clientGaveUp finds a response that reached the client's own namespace and
// found its socket closed. Proof: the kernel's drop there for lack of a socket, and
// that no response came before.
func clientGaveUp(_ *memory, t *trace.Trace) []trace.Finding {
	if t.Exchange == nil || !gaveUp(t.Exchange) {
		return nil
	}
	ex := t.Exchange
	f := trace.Finding{
		Code:    ClientGaveUp,
		Summary: fmt.Sprintf("The response came %s after the query, when the client had closed its socket.", since(ex.Drop.Offset)),
		Evidence: []string{
			fmt.Sprintf("kernel drop of the response in %s, %s: reason %s, in %s", netns(ex.Drop.NetNSName, ex.Drop.NetNS), device(ex.Drop.IfName), orNone(ex.Drop.Reason), orNone(ex.Drop.Where)),
		},
		Advice: "Find what was slow in the rows above, or have the client wait longer (`options timeout:` in its resolv.conf).",
	}
	if last, ok := lastSighting(ex, trace.MessageResponse); ok {
		f.Evidence = append(f.Evidence, last)
	}
	if t.Query != nil {
		f.Evidence = append(f.Evidence, recorded(t))
	}
	return []trace.Finding{inDoubt(f, ex)}
}

func gaveUp(ex *trace.Exchange) bool {
	d := ex.Drop
	return ex.Outcome == trace.OutcomeDropped && d != nil && d.Message == trace.MessageResponse && noSocket(d) &&
		len(ex.Path) > 0 && ex.Path[0].NetNS == d.NetNS && ex.Path[0].Direction == trace.DirectionTX
}
