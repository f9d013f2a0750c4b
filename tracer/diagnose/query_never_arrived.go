package diagnose

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// queryNeverArrived finds a query that did not come to its server. Proof: it was
// not seen where that server is, which records its queries, and has no record of it.
func queryNeverArrived(t *trace.Trace) (trace.Finding, bool) {
	return trace.Finding{
		Code:    QueryNeverArrived,
		Summary: "The query did not reach CoreDNS" + lastPlace(t.Exchange, trace.MessageQuery) + ".",
		Advice:  "Follow the way of the query from where it was last seen; what lies beyond is not observed on this node.",
	}, t.Query == nil && notRecorded(t)
}

func notRecorded(t *trace.Trace) bool { return slices.Contains(t.Gaps, trace.GapNotRecorded) }
