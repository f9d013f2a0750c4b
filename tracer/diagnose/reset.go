package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// resetEvidence quotes the TCP segment that ended the connection of an exchange.
func resetEvidence(ex *trace.Exchange) []string {
	if ex.Reset == nil {
		return nil
	}
	return []string{fmt.Sprintf("%s reset the TCP connection (RST) %s after the first packet", ex.Reset.Src, since(ex.Reset.Offset))}
}

// refused explains an attempt to connect that was answered by a reset. Proof: the
// segment, which does not come from the client.
func refused(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	if ex.Reset == nil || !ex.Connects() || ex.Reset.Src.Addr() == ex.ClientIP {
		return trace.Finding{}, false
	}
	f := trace.Finding{
		Code:    DroppedNoSocket,
		Summary: fmt.Sprintf("%s refused the client's TCP connection with a reset: nothing listens there, or a firewall rejects it.", ex.Reset.Src),
		Advice:  fmt.Sprintf("See that the server listens on TCP port %d (`ss -lntp`), and that no rule there rejects with a TCP reset.", ex.Reset.Src.Port()),
	}
	if d := ex.LastDrop(); d != nil && d.Message == trace.MessageQuery && noSocket(d) {
		f.Summary = fmt.Sprintf("%s refused the client's TCP connection with a reset: nothing listens there in %s.", ex.Reset.Src, droppedIn(t, d))
		f.Advice = fmt.Sprintf("See that the server runs there and listens on TCP port %d (`ss -lntp`).", ex.Reset.Src.Port())
	}
	f.Evidence = append(append(resetEvidence(ex), lastSightings(t, ex)...), otherDrops(t, ex, nil)...)
	return f, true
}
