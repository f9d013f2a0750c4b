package diagnose

import (
	"fmt"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// listenQueueFull finds a server that listens and does not accept. Proof: the last SYN
// that reached its listener found the queue of connections full, and nothing answered.
func listenQueueFull(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, s := range subjects(t) {
		ex := s.exchange
		if !noRoom(ex) {
			continue
		}
		place := ""
		if at, ok := ex.Sighting(ex.Milestones.Query.Arrived); ok {
			place = ", in " + namespaceOf(t, &at.Device)
		}
		f := notAccepted(ex, place)
		f.Evidence = append([]string{fmt.Sprintf("the last SYN of %s that reached the listener found no room in its queue", s.name())}, lastSightings(t, ex)...)
		f.Evidence = append(f.Evidence, fmt.Sprintf("it was sent %s, and nothing answered", english.Plural(ex.Transmissions, "time", "")))
		if !s.upstream {
			f.Evidence = append(f.Evidence, whyConnect(m, t)...)
		}
		f.Evidence = appendIncomplete(f.Evidence, ex)
		findings = append(findings, f)
	}
	return findings
}

// noRoom tells whether an attempt to connect found a full queue, and nothing else came of
// it.
func noRoom(ex *trace.Exchange) bool {
	return ex.ListenFull && ex.Outcome == trace.OutcomeUnanswered && ex.Reset == nil && !answered(ex)
}

// droppedListenQueue finds the same where the kernel tells of a drop for lack of room:
// that of the packet by which the client completes its connection, or goes on with it.
func droppedListenQueue(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	return notAccepted(s.exchange, ", in "+droppedIn(t, d)), d.Reason == "TCP_LISTEN_OVERFLOW"
}

func notAccepted(ex *trace.Exchange, place string) trace.Finding {
	return trace.Finding{
		Code:    ListenQueueFull,
		Summary: fmt.Sprintf("The server %s listens and does not accept: its queue of connections is full%s.", server(ex), place),
		Advice:  "`ss -lnt` there shows Recv-Q above Send-Q: the server hangs, or accepts more slowly than clients connect.",
	}
}
