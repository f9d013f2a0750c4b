package diagnose

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// queryNeverArrived finds a query that did not come to its server. Proof: it was
// not seen where that server is, though it would have been, and the server, which
// records its queries, has no record of it.
func queryNeverArrived(t *trace.Trace) (trace.Finding, bool) {
	q := t.Exchange.Milestones.Query
	return trace.Finding{
		Code:    QueryNeverArrived,
		Summary: "The query did not reach CoreDNS" + lastPlace(t, t.Exchange, trace.MessageQuery) + ".",
		Advice:  "Look beyond that place: the route and bridge to the server (`ip route get`), a firewall of the host or cloud, the other node.",
	}, t.Query == nil && notRecorded(t) && q.Arrived == trace.NotSeen && !q.Read.Seen()
}

func notRecorded(t *trace.Trace) bool { return slices.Contains(t.Gaps, trace.GapNotRecorded) }
