package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// The tracer itself loses packets where they come faster than it reads them, and
// an exchange that was open then says so, but not which: that something was not
// seen proves nothing any more. A rule that argues from what was not seen then
// finds nothing, or says that it is in doubt; what was seen stays proven.

// packetsLost tells whether packets of an exchange may be missing.
func packetsLost(ex *trace.Exchange) bool { return ex != nil && ex.LostEvents > 0 }

// appendLost says that packets may be missing.
func appendLost(evidence []string, ex *trace.Exchange) []string {
	if !packetsLost(ex) {
		return evidence
	}
	were := "packets were"
	if ex.LostEvents == 1 {
		were = "packet was"
	}
	return append(evidence, fmt.Sprintf("%d %s lost by the tracer in this time, of this lookup or of others: what was not seen may have happened all the same", ex.LostEvents, were))
}

// inDoubt marks a finding that rests on something not seen in an exchange, if
// packets of that may be missing.
func inDoubt(f trace.Finding, ex *trace.Exchange) trace.Finding {
	if packetsLost(ex) {
		f.InDoubt = true
		f.Summary = "In doubt, packets are missing: " + f.Summary
		f.Evidence = appendLost(f.Evidence, ex)
	}
	return f
}
