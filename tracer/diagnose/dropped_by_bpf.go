package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedByBPF finds a packet that an eBPF program dropped. Proof: the kernel's drop
// in a place, or with a reason, that only the verdict of such a program leads to:
// traffic control, XDP, a cgroup, a socket's filter.
func droppedByBPF(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if d.BPF == "" {
		return trace.Finding{}, false
	}
	if evidence := noEndpoints(s.exchange); d.Message == trace.MessageQuery && evidence != nil {
		return trace.Finding{
			Code: DroppedByBPF,
			Summary: fmt.Sprintf("The Service %s has no ready endpoint, and an eBPF program (%s) dropped %s in %s.",
				s.exchange.Server.Service, d.BPF, s.name(), droppedWhere(t, d)),
			Evidence: evidence,
			Advice:   noEndpointsAdvice,
		}, true
	}
	return trace.Finding{
		Code:    DroppedByBPF,
		Summary: fmt.Sprintf("An eBPF program (%s) dropped %s in %s.", d.BPF, droppedWhat(s, d), droppedWhere(t, d)),
		Advice:  "With Cilium, or Calico's eBPF, it is the network policy (`cilium-dbg monitor -t drop`); `bpftool net` lists other programs.",
	}, true
}
