package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// The tracer itself loses packets where they come faster than it reads them, and an
// exchange that was open then says so, but not which; and where it takes a sample in
// the kernel, packets may be left out behind a translation. That something was not
// seen proves nothing any more. A rule that argues from what was not seen then finds
// nothing, or says that it is in doubt; what was seen stays proven.

// incomplete tells whether packets of an exchange may be missing.
func incomplete(ex *trace.Exchange) bool { return ex != nil && ex.Incomplete() }

// appendIncomplete says that packets may be missing.
func appendIncomplete(evidence []string, ex *trace.Exchange) []string {
	const all = ": what was not seen may have happened all the same"
	switch {
	case !incomplete(ex):
		return evidence
	case ex.LostEvents == 0:
		return append(evidence, "it was sampled in the kernel, which leaves packets out where the client has another address"+all)
	}
	were := "packets were"
	if ex.LostEvents == 1 {
		were = "packet was"
	}
	return append(evidence, fmt.Sprintf("%d %s lost by the tracer in this time, of this lookup or of others%s", ex.LostEvents, were, all))
}

// inDoubt marks a finding that rests on something not seen in an exchange, if
// packets of that may be missing.
func inDoubt(f trace.Finding, ex *trace.Exchange) trace.Finding {
	if incomplete(ex) {
		f.InDoubt = true
		f.Summary = "In doubt, packets are missing: " + f.Summary
		f.Evidence = appendIncomplete(f.Evidence, ex)
	}
	return f
}
