package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// longWait is a wait in the server's socket that scheduling on a busy node does
// not explain.
const longWait = 250 * time.Millisecond

// serverOverloaded finds a query that waited for the server to read it. Proof: it
// arrived at the server, and much later, on the same clock, the kernel saw it read
// or, where the kernel does not show that, CoreDNS's record starts. What comes over TCP
// behind others may wait for their answers: CoreDNS takes one at a time from a connection.
func serverOverloaded(_ *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Protocol == "tcp" && ex.Outstanding > 0 {
		return nil
	}
	arrived, ok := ex.Sighting(ex.Milestones.Query.Arrived)
	if !ok || droppedOnArrival(ex, &arrived) {
		return nil
	}
	at := ex.Time.Add(arrived.Offset.Duration())
	wait, ok := wait(t, at)
	if !ok || wait < longWait {
		return nil
	}
	came := "was received from device " + arrived.IfName
	if arrived.Direction == trace.DirectionDelivered {
		came = "was delivered to the server's socket"
	}
	return []trace.Finding{inDoubt(trace.Finding{
		Code:    ServerOverloaded,
		Summary: fmt.Sprintf("The query waited %s in the server's socket before the server read it.", took(wait)),
		Evidence: []string{
			fmt.Sprintf("the query %s in %s, %s after the client sent it", came, namespaceOf(t, &arrived.Device), since(arrived.Offset)),
			whatTells(t, wait),
		},
		Advice: "See its CPU limit (`container_cpu_cfs_throttled_periods_total`) and the load of its node; add replicas or a node-local cache.",
	}, ex)}
}

// wait returns how long after its arrival the query was read; false where that is not known.
func wait(t *trace.Trace, arrived time.Time) (time.Duration, bool) {
	ex := t.Exchange
	if read, ok := ex.At(ex.Milestones.Query.Read); ok {
		return read.Sub(arrived), true
	}
	// Only of a server that was seen answering, or that did not, the clock is known.
	if t.Query == nil || ex.Milestones.Response.Left == trace.NotObservable {
		return 0, false
	}
	return t.OnClientClock(t.Query.Time).Sub(arrived), true // as the packets' times are
}

// whatTells says how it is known that the query waited.
func whatTells(t *trace.Trace, wait time.Duration) string {
	if t.Exchange.Milestones.Query.Read.Seen() {
		return fmt.Sprintf("%s read it from its socket %s later, as the kernel saw", reader(t.Exchange), took(wait))
	}
	return fmt.Sprintf("CoreDNS's record of it starts %s later and takes %s", took(wait), orUnknown(t.Query.DNS.Duration))
}

// droppedOnArrival tells whether what was seen to arrive may have been dropped before
// it came into the socket: what was read was another transmission then.
func droppedOnArrival(ex *trace.Exchange, arrived *trace.Sighting) bool {
	if arrived.Direction == trace.DirectionDelivered {
		return false
	}
	for i := range ex.Drops {
		if d := &ex.Drops[i]; d.Message == trace.MessageQuery && d.Place() == arrived.Place() {
			return true
		}
	}
	return false
}
