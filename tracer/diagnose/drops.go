package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// cause names a drop if its proof is there.
type cause func(*memory, *trace.Trace, leg) (trace.Finding, bool)

// causes from the most telling to the least.
var causes = []cause{
	droppedReceiveBuffer, droppedNoSocket, staleEndpoint, conntrackRace, conntrackFull, droppedByNetfilter, droppedOther,
}

// drops names why the kernel freed a packet of an exchange, which then got no
// response, or only because the client sent its query again.
func drops(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, l := range legs(t) {
		if !decisiveDrop(l.exchange) {
			continue
		}
		for _, c := range causes {
			if f, ok := c(m, t, l); ok {
				f.Evidence = append(dropEvidence(m, t, l), f.Evidence...)
				findings = append(findings, f)
				break
			}
		}
	}
	return findings
}

// decisiveDrop tells whether a drop cost the client its response, or the time
// until it asked again. A second response that finds the socket closed did not.
func decisiveDrop(ex *trace.Exchange) bool {
	d := ex.Drop
	switch {
	case d == nil || gaveUp(ex) || connectionClosed(ex):
		return false
	case ex.Outcome == trace.OutcomeDropped:
		return true
	}
	return ex.Outcome == trace.OutcomeAnswered && ex.Transmissions > 1 &&
		ex.Duration != nil && d.Offset < *ex.Duration && !noSocket(d)
}

// connectionClosed tells whether a query over TCP met a connection that its server
// had closed meanwhile, as servers do with idle ones. Its sender is told at once
// and opens another; if that fails too, it has a finding of its own.
func connectionClosed(ex *trace.Exchange) bool {
	return ex.Protocol == "tcp" && !ex.Connects() && ex.Drop.Message == trace.MessageQuery && noSocket(ex.Drop)
}

// droppedWhat names the packet, and droppedWhere the place where it died.
func droppedWhat(l leg) string {
	if l.exchange.Drop.Message == trace.MessageResponse {
		if l.exchange.Connects() {
			return "the server's answer to " + l.name()
		}
		return "the response to " + l.name()
	}
	return l.name()
}

func droppedWhere(d *trace.Drop) string {
	return fmt.Sprintf("%s, %s", netns(d.NetNSName, d.NetNS), device(d.IfName))
}

// dropQuote is what the kernel said.
func dropQuote(ex *trace.Exchange) string {
	d := ex.Drop
	reason, where := d.Reason, d.Where
	if reason == "" {
		reason = "not given by this kernel"
	}
	if where == "" {
		where = "a function whose name is hidden (kernel.kptr_restrict)"
	}
	quote := fmt.Sprintf("kernel drop of the %s %s after the first packet: reason %s, in %s", packet(ex, d.Message), since(d.Offset), reason, where)
	if d.Words != "" {
		quote += " (" + d.Words + ")"
	}
	return quote
}

// dropEvidence quotes the drop and what surrounds it.
func dropEvidence(m *memory, t *trace.Trace, l leg) []string {
	ex, d := l.exchange, l.exchange.Drop
	evidence := []string{dropQuote(ex)}
	if last, ok := lastSightingBefore(ex, d.Message, d.Offset); ok {
		evidence = append(evidence, last)
	}
	if ex.Transmissions > 1 {
		evidence = append(evidence, fmt.Sprintf("it was sent %d times", ex.Transmissions))
	}
	switch {
	case ex.Connects():
		evidence = append(evidence, whyConnect(m, t)...)
	case !l.upstream:
		evidence = append(evidence, recorded(t))
	}
	return appendIncomplete(evidence, ex)
}

// recorded says what the server's own record says of the lookup.
func recorded(t *trace.Trace) string {
	switch {
	case t.Query != nil:
		return fmt.Sprintf("CoreDNS recorded the query: outcome %s, rcode %s", t.Query.Outcome, orNone(t.Query.RCode))
	case notRecorded(t):
		return "CoreDNS never recorded it, though it records other queries"
	}
	return "CoreDNS never recorded it: no query record of this lookup came"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
