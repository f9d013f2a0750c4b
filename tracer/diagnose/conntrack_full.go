package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// conntrackFull finds a packet of a new connection for which connection tracking
// had no room. Proof: the kernel dropped it by a hook and not by a rule of
// nftables (nf_hook_slow), before it had an entry, while the table of that
// namespace was at its maximum. What iptables-legacy, or any rule before Linux
// 6.12, drops ahead of connection tracking in just that moment looks the same.
func conntrackFull(_ *memory, _ *trace.Trace, l leg) (trace.Finding, bool) {
	d := l.exchange.Drop
	if d.Where != "nf_hook_slow" || !byNetfilter(d) || !tableFull(d) {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code: ConntrackFull,
		Summary: fmt.Sprintf("Connection tracking in %s was full and let no new connection through: it dropped %s.",
			netns(d.NetNSName, d.NetNS), droppedWhat(l)),
		Evidence: []string{fmt.Sprintf("its table had %d entries of at most %d at that moment, and none for this packet", d.ConntrackCount, d.ConntrackMax)},
		Advice:   "Raise net.netfilter.nf_conntrack_max on the node, and see who fills its table: `conntrack -L`. A node-local DNS cache needs fewer entries.",
	}, true
}

// tableFull allows for entries that ended between the kernel's verdict and the
// moment in which their number was read: microseconds, so fewer than one in a
// hundred.
func tableFull(d *trace.Drop) bool {
	return d.ConntrackMax > 0 && uint64(d.ConntrackCount)*100 >= uint64(d.ConntrackMax)*99
}
