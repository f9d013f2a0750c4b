package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/plural"
)

// cause names a drop of a packet of an exchange if its proof is there.
type cause func(*memory, *trace.Trace, subject, *trace.Drop) (trace.Finding, bool)

// causes from the most telling to the least.
var causes = []cause{
	droppedByBPF, droppedReceiveBuffer, droppedListenQueue, droppedNoSocket, staleEndpoint, conntrackRace, conntrackFull, droppedByNetfilter, droppedOther,
}

// drops names why the kernel freed a packet of an exchange, which then got no
// response, or only because the client sent its query again.
func drops(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, s := range subjects(t) {
		d := decisiveDrop(s.exchange)
		if d == nil {
			continue
		}
		for _, c := range causes {
			if f, ok := c(m, t, s, d); ok {
				f.Evidence = append(dropEvidence(m, t, s, d), f.Evidence...)
				findings = append(findings, f)
				break
			}
		}
	}
	return findings
}

// decisiveDrop returns the drop that cost the client its response, or the time
// until it asked again; nil if none did. A second response that finds the socket
// closed did not.
func decisiveDrop(ex *trace.Exchange) *trace.Drop {
	last := ex.LastDrop()
	switch {
	case last == nil || connectionClosed(ex):
		return nil
	case gaveUp(ex):
		return repeatedFor(ex, last.Offset)
	case ex.Outcome == trace.OutcomeDropped && !copyOnly(ex, last):
		return last
	case ex.Outcome == trace.OutcomeAnswered && ex.Duration != nil:
		return repeatedFor(ex, *ex.Duration)
	}
	return nil
}

// repeatedFor returns the last drop before a response, for which the client had to
// send its query again; nil if there was none.
func repeatedFor(ex *trace.Exchange, response trace.Seconds) *trace.Drop {
	if ex.Transmissions < 2 {
		return nil
	}
	for i := len(ex.Drops) - 1; i >= 0; i-- {
		if d := &ex.Drops[i]; d.Offset < response && !noSocket(d) {
			return d
		}
	}
	return nil
}

// copyOnly tells whether a drop was of another copy of a query that reached its
// server all the same, as where a bridge floods it to all its ports.
func copyOnly(ex *trace.Exchange, d *trace.Drop) bool {
	if d.Message != trace.MessageQuery || ex.Transmissions > 1 {
		return false
	}
	return ex.Milestones.Query.Read.Seen() || ex.Milestones.Response.Left.Seen() || delivered(ex) && !atItsSocket(ex, d)
}

// atItsSocket tells whether a query was dropped where it had been handed to its socket:
// the socket had no room for it, or did not take it.
func atItsSocket(ex *trace.Exchange, d *trace.Drop) bool {
	at, ok := ex.Sighting(ex.Milestones.Query.Arrived)
	return ok && d.Node == at.Node && d.NetNS == at.NetNS && d.Offset >= at.Offset
}

// connectionClosed tells whether a query over TCP met a connection that its server
// had closed meanwhile, as servers do with idle ones. Its sender is told at once
// and opens another; if that fails too, it has a finding of its own.
func connectionClosed(ex *trace.Exchange) bool {
	d := ex.LastDrop()
	return ex.Protocol == "tcp" && !ex.Connects() && d != nil && d.Message == trace.MessageQuery && noSocket(d)
}

// droppedWhat names the packet, and droppedWhere the place where it died.
func droppedWhat(s subject, d *trace.Drop) string {
	if d.Message == trace.MessageResponse {
		if s.exchange.Connects() {
			return "the server's answer to " + s.name()
		}
		return "the response to " + s.name()
	}
	return s.name()
}

func droppedWhere(t *trace.Trace, d *trace.Drop) string {
	return fmt.Sprintf("%s, %s", droppedIn(t, d), device(d.IfName))
}

func droppedIn(t *trace.Trace, d *trace.Drop) string {
	return namespace(t, d.Node, d.NetNSName, d.NetNS)
}

// dropQuote is what the kernel said.
func dropQuote(ex *trace.Exchange, d *trace.Drop) string {
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

// fewDrops is how many drops of an exchange are quoted beside the decisive one.
const fewDrops = 3

// otherDrops quotes the drops of an exchange but one, with their places.
func otherDrops(t *trace.Trace, ex *trace.Exchange, but *trace.Drop) []string {
	var evidence []string
	more := 0
	for i := range ex.Drops {
		d := &ex.Drops[i]
		switch {
		case d == but:
		case len(evidence) == fewDrops:
			more++
		default:
			evidence = append(evidence, dropQuote(ex, d)+", in "+droppedWhere(t, d))
		}
	}
	if more > 0 {
		evidence = append(evidence, plural.Of(more, "more drop")+" of its packets")
	}
	return evidence
}

// dropEvidence quotes the drop and what surrounds it.
func dropEvidence(m *memory, t *trace.Trace, s subject, d *trace.Drop) []string {
	ex := s.exchange
	evidence := []string{dropQuote(ex, d)}
	if last, ok := lastSightingBefore(t, ex, d.Message, d.Offset); ok {
		evidence = append(evidence, last)
	}
	evidence = append(evidence, otherDrops(t, ex, d)...)
	if ex.Transmissions > 1 {
		evidence = append(evidence, fmt.Sprintf("it was sent %d times", ex.Transmissions))
	}
	evidence = append(evidence, rejections(ex)...)
	switch {
	case ex.Connects():
		evidence = append(evidence, whyConnect(m, t)...)
	case !s.upstream:
		evidence = append(evidence, recorded(t)...)
	}
	return appendIncomplete(evidence, ex)
}

// recorded quotes the server's own record of the lookup. That there is none means
// something only where the server is known to record such queries.
func recorded(t *trace.Trace) []string {
	switch {
	case t.Query != nil:
		return []string{fmt.Sprintf("CoreDNS recorded the query: outcome %s, %s", t.Query.Outcome, codeOf(t.Query))}
	case notRecorded(t):
		return []string{"CoreDNS never recorded it, though it records other queries"}
	}
	return []string{"no query record of this lookup came"}
}

// codeOf quotes the response code of a record, which is missing where CoreDNS wrote no
// response.
func codeOf(q *trace.Query) string {
	if q.RCode == "" {
		return "no response written"
	}
	return "rcode " + q.RCode
}

// orNoCode returns a response code, or says that there is none.
func orNoCode(rcode string) string {
	if rcode == "" {
		return "no response code"
	}
	return rcode
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
