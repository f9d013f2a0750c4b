package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// cause names a drop of a packet of an exchange if its proof is there.
type cause func(*memory, *trace.Trace, subject, *trace.Drop) (trace.Finding, bool)

// causes from the most telling to the least.
var causes = []cause{
	droppedTooBig, droppedByBPF, droppedReceiveBuffer, droppedListenQueue, droppedNoSocket, staleEndpoint, conntrackRace, conntrackFull, droppedByNetfilter, droppedOther,
}

// drops names why the kernel freed packets of an exchange, which then got no response, or
// only because the client sent its query again.
func drops(m *memory, t *trace.Trace, s subject) []transmissionFinding {
	var all []transmissionFinding
	for _, l := range losses(s.exchange) {
		s.transmission = l.transmission
		for _, c := range causes {
			if f, ok := c(m, t, s, l.drop); ok {
				f.Evidence = append(dropEvidence(m, t, s, l.drop), f.Evidence...)
				all = append(all, transmissionFinding{f, l.first, l.drop})
				break
			}
		}
	}
	return all
}

// loss is a drop that cost the client a response, or the time until it asked again.
type loss struct {
	drop         *trace.Drop // the last of its kind
	first        int         // the transmission that died so first
	transmission int         // the one that did; 0: several did, or there is but one
}

// losses returns the drops that cost the client a response, in order; those of one kind at
// one place once.
func losses(ex *trace.Exchange) []loss {
	last := ex.LastDrop()
	switch {
	case last == nil || connectionClosed(ex):
		return nil
	case ClientClosed(ex):
		return lossesOf(ex, repeated(ex, last.Offset), lastBefore(ex, last))
	case ex.Outcome == trace.OutcomeDropped && !copyOnly(ex, last):
		return lossesOf(ex, transmissions(ex, last.Offset), last)
	case ex.Outcome == trace.OutcomeAnswered && ex.Duration != nil:
		return lossesOf(ex, repeated(ex, *ex.Duration), nil)
	}
	return nil
}

// lastBefore returns the drop of a response over TCP before the one that found its client
// gone: the server's kernel had sent it again and again until then. Nil if there is none.
func lastBefore(ex *trace.Exchange, end *trace.Drop) *trace.Drop {
	for i := len(ex.Drops) - 1; i >= 0 && ex.Protocol == "tcp"; i-- {
		if d := &ex.Drops[i]; d.Message == trace.MessageResponse && kindOf(d) != kindOf(end) {
			return d
		}
	}
	return nil
}

// lossesOf returns the losses of transmissions, with the drop that ended the last of them,
// if that is known.
func lossesOf(ex *trace.Exchange, sent []transmission, last *trace.Drop) []loss {
	var all []loss
	add := func(d *trace.Drop, transmission int) {
		if i := slices.IndexFunc(all, func(l loss) bool { return kindOf(l.drop) == kindOf(d) }); i >= 0 {
			all[i].drop, all[i].transmission = d, 0
			return
		}
		all = append(all, loss{d, transmission, transmission})
	}
	number := 0
	for _, w := range sent {
		switch d := lastDropOf(ex, w); {
		case last != nil && w.has(last.Sent()):
			if len(sent) > 1 {
				number = w.number
			}
		case d != nil:
			add(d, w.number)
		}
	}
	if last != nil {
		add(last, number)
	}
	return all
}

// dropKind is what drops have in common that are of one kind, at one place.
type dropKind struct {
	message, reason, where, words, bpf string
	dst                                netip.AddrPort
	place                              trace.Place
	ifname                             string
}

func kindOf(d *trace.Drop) dropKind {
	return dropKind{d.Message, d.Reason, d.Where, d.Description, d.BPF, d.Dst, d.Place(), d.IfName}
}

// lastDropOf returns the drop that ended a transmission; nil if none did. A copy that was
// dropped beside one that arrived did not, and a response for which the client has no
// socket, though it asks again from it, is one that it could not take.
func lastDropOf(ex *trace.Exchange, w transmission) *trace.Drop {
	client, known := ex.ClientPlace()
	arrived := w.cameTo(ex, ex.Milestones.Query.Read) || w.cameTo(ex, ex.Milestones.Query.Arrived) || w.cameTo(ex, ex.Milestones.Response.Left)
	for i := len(ex.Drops) - 1; i >= 0; i-- {
		d := &ex.Drops[i]
		switch {
		case !w.has(d.Sent()):
		case d.Message == trace.MessageQuery && arrived && !atItsSocket(ex, d):
		case d.Message == trace.MessageResponse && noSocket(d) && known && d.Place() == client:
		default:
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
// had closed meanwhile, as servers do with idle ones. Its sender learns of it at once
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
	if d.InSocket() {
		return droppedIn(t, d) + ", in its receiver's socket"
	}
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
	if d.Description != "" {
		quote += " (" + d.Description + ")"
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
		evidence = append(evidence, english.Plural(more, "more drop", "")+" of its packets")
	}
	return evidence
}

// dropEvidence quotes the drop and what surrounds it.
func dropEvidence(m *memory, t *trace.Trace, s subject, d *trace.Drop) []string {
	ex := s.exchange
	evidence := []string{dropQuote(ex, d)}
	if last, ok := lastSightingBefore(t, ex, d.Message, endOfSending(ex, d)); ok {
		evidence = append(evidence, last)
	}
	evidence = append(evidence, otherDrops(t, ex, d)...)
	if ex.Transmissions > 1 {
		evidence = append(evidence, fmt.Sprintf("it was sent %d times", ex.Transmissions))
	}
	evidence = append(evidence, rejections(ex)...)
	switch {
	case s.upstream: // what it was for is the attempt's to say
	case ex.Connects():
		evidence = append(evidence, whyConnect(m, t)...)
	default:
		evidence = append(evidence, recorded(t)...)
	}
	return appendIncomplete(evidence, ex)
}

// endOfSending is until when sightings of a message are of the packet that was dropped: the
// same may have been sent again while it waited.
func endOfSending(ex *trace.Exchange, d *trace.Drop) trace.Seconds {
	end := d.Offset
	if d.Message == trace.MessageQuery {
		for _, w := range transmissions(ex, d.Offset) {
			if w.has(d.Sent()) {
				end = min(end, w.until-1)
			}
		}
	}
	return end
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
