package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedOther finds a packet that the kernel dropped for a reason that has no
// finding of its own. Proof: the drop, whose reason is quoted.
func droppedOther(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	return trace.Finding{
		Code:    DroppedOther,
		Summary: fmt.Sprintf("The kernel dropped %s in %s.", droppedWhat(s, d), droppedWhere(t, d)),
		Advice:  "Look at routes and neighbours there first (`ip route`, `ip neigh`); the reason is the kernel's own name (enum skb_drop_reason).",
	}, true
}
