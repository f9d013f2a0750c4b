package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedByNetfilter finds a packet that a firewall rule dropped. Proof: the
// kernel's drop with the reason NETFILTER_DROP or, on kernels before 5.17, in a
// function that runs the rules (net/netfilter/core.c, nf_tables_core.c).
func droppedByNetfilter(_ *memory, _ *trace.Trace, l leg) (trace.Finding, bool) {
	d := l.exchange.Drop
	if !byNetfilter(d) {
		return trace.Finding{}, false
	}
	advice := "Look for the rule in that namespace: `nft list ruleset`, `iptables-save -c` (counters that rise); in Kubernetes, the NetworkPolicies of both pods."
	if l.exchange.Connects() {
		advice += " Let TCP port 53 pass too: answers that do not fit into a datagram need it."
	}
	return trace.Finding{
		Code:    DroppedByNetfilter,
		Summary: fmt.Sprintf("A firewall rule dropped %s in %s.", droppedWhat(l), droppedWhere(d)),
		Advice:  advice,
	}, true
}

func byNetfilter(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NETFILTER_DROP"
	}
	return d.Where == "nf_hook_slow" || d.Where == "nft_do_chain"
}
