package diagnose

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// noResponseSeen finds a client that got no response, and nothing that tells why.
// Proof: its query was seen, and no response to it arrived that this node would
// have seen.
func noResponseSeen(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	f := trace.Finding{
		Code:    NoResponseSeen,
		Summary: "No response was seen, and nothing shows why" + lastPlace(t, ex, trace.MessageQuery) + ".",
		Advice:  "Follow the query on from there. If that is the server's namespace: does it listen (`ss -lnup`), and what does its log say?",
	}
	if read, ok := ex.Sighting(ex.Milestones.Query.Read); ok && !responseSeen(t) {
		f.Summary = fmt.Sprintf("%s read the query in %s, and no response left it.", reader(ex), namespaceOf(t, &read.Device))
		f.Advice = "See what it waits for or refuses in silence: its log, its configuration, its upstreams."
		if plainToTLSPort(ex) {
			f.Advice = plainAtTLSAdvice
		}
	}
	for i := range t.Upstreams {
		if u := &t.Upstreams[i]; closedUntold(t, u) {
			after, _ := lateBy(u)
			f.Summary = fmt.Sprintf("%s took the query, and its socket was closed when its upstream's response came, after %s: it ended, or gave up.", reader(ex), since(after))
			f.Evidence = append(f.Evidence, dropQuote(u.Exchange, u.Exchange.LastDrop())+", in "+droppedWhere(t, u.Exchange.LastDrop()))
			f.Advice = "See whether the server was restarted or killed at that moment (its log, its pod's restarts), and else how long it waits for its upstreams."
			break
		}
	}
	if q := t.Query; q != nil && q.Outcome == trace.OutcomeNoResponse && !responseSeen(t) {
		silentServer(&f, t)
	}
	if after, ok := answeredUnwatched(t); ok {
		f.Summary = fmt.Sprintf("CoreDNS answered %s after the query, when nobody watched for the response any more.", took(after))
		f.Advice = "Find what took so long: clients wait for 5 s (`options timeout:` in resolv.conf)."
	}
	if responseSeen(t) {
		f.Summary = "A response was sent; whether it arrived cannot be seen here" + lastPlace(t, ex, trace.MessageResponse) + "."
		f.Advice = "Ask the client. `dnstrace check` says what this kernel does not show."
	}
	return f, true
}

// silentServer says which plugin ended a query that CoreDNS meant not to answer, or could
// not.
func silentServer(f *trace.Finding, t *trace.Trace) {
	q, in := t.Query, ""
	if at, ok := t.Exchange.Last(trace.MessageQuery, math.MaxInt64); ok {
		in = " in " + namespaceOf(t, &at.Device)
	}
	f.Summary = fmt.Sprintf("CoreDNS took the query%s and wrote no answer.", in)
	f.Advice = "See CoreDNS's log for this moment."
	if last := lastHop(q); last != "" {
		f.Summary = fmt.Sprintf("CoreDNS took the query%s and wrote no answer: it ended in its plugin %s.", in, last)
		f.Advice = fmt.Sprintf("See `%s` in the Corefile, whether it means to drop such queries, and CoreDNS's log for this moment.", last)
	}
	if q.Error != "" {
		f.Evidence = append(f.Evidence, "CoreDNS's own words: "+q.Error)
	}
}

// neverRead finds a query that waits in its server's socket. Proof: the kernel
// delivered it there, would have shown that it was read, and did not; nor did a
// response leave. Over TCP CoreDNS, as others, reads a query when it has answered those
// before it on the connection: where the client has some that are not, it need not hang.
func neverRead(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	q := ex.Milestones.Query
	at, _ := ex.Sighting(q.Arrived)
	f := trace.Finding{
		Code:    NoResponseSeen,
		Summary: fmt.Sprintf("The query is in the socket of %s in %s, which never read it.", processOf(ex.Server, "the server"), namespaceOf(t, &at.Device)),
		Advice:  "The server hangs or is stopped: see its state (`ps -o stat,wchan`), its CPU limit, its log, and its liveness probe.",
	}
	if ex.Protocol == "tcp" && ex.Outstanding > 0 {
		f.Summary = fmt.Sprintf("The query waits in the socket of %s in %s, which has not answered %s before it.",
			processOf(ex.Server, "the server"), namespaceOf(t, &at.Device), english.Plural(ex.Outstanding, "query", "queries"))
		f.Advice = fmt.Sprintf("See what those wait for, of this client's lookups: first the ones from port %d too, behind which it waits to be read.", ex.ClientPort)
	}
	return f, delivered(ex) && q.Read == trace.NotSeen && !responseSeen(t) && t.Query == nil
}

// delivered tells whether the query was seen to be in the socket of its server.
func delivered(ex *trace.Exchange) bool {
	at, ok := ex.Sighting(ex.Milestones.Query.Arrived)
	return ok && at.Direction == trace.DirectionDelivered
}

// reader names the process that reads a server's socket, at the start of a sentence.
func reader(ex *trace.Exchange) string { return processOf(ex.Server, "The server") }

// unknown is what is known of a lookup without a response if packets of it may be
// missing: not even that there was none.
func unknown(m *memory, t *trace.Trace) trace.Finding {
	ex := t.Exchange
	f := trace.Finding{
		Code:     NoResponseSeen,
		InDoubt:  true,
		Summary:  "No response was seen, but the tracer lost packets in this time: there may have been one.",
		Evidence: appendIncomplete(append(lastSightings(t, ex), rejections(ex)...), ex),
		Advice:   "Do not act on this one alone: ask the client, and look at lookups without lost packets. Does `dnstrace_lost_events_total` rise?",
	}
	switch {
	case len(ex.Rejected) > 0:
		if f.Code = ResponseRejected; fromElsewhere(ex) != nil {
			f.Code = UnexpectedSource
		}
		f.Summary = "A response came that the client could not take. The tracer lost packets in this time: there may have been another."
	case recordedAnswer(t):
		f.Summary = "The server answered, but the tracer lost packets in this time: whether the client got it is not known."
	case responseSeen(t):
		f.Summary = "A response was seen on its way, but the tracer lost packets in this time: whether the client got it is not known."
	}
	if ex.NAT != nil && ex.NAT.Endpoint != nil {
		f.Evidence = append(f.Evidence, listed(ex)...)
	}
	if ex.Connects() {
		f.Evidence = append(f.Evidence, whyConnect(m, t)...)
		return f
	}
	f.Evidence = append(f.Evidence, recorded(t)...)
	return f
}
