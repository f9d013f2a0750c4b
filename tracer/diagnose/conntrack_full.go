package diagnose

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// conntrackFull finds a packet of a new connection for which connection tracking
// had no room. Proof: the kernel dropped it by a hook and not by a rule of
// nftables (nf_hook_slow), before it had an entry, at a hook where new ones are
// made, while the table of that namespace was at its maximum. What iptables-legacy,
// or any rule before Linux 6.12, drops ahead of connection tracking in just that
// moment looks the same: the finding says so, and what tells them apart.
func conntrackFull(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if d.Where != "nf_hook_slow" || !byNetfilter(d) || !tableFull(d) || !beforeTracking(d) {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code: ConntrackFull,
		Summary: fmt.Sprintf("Connection tracking in %s was full; %s was dropped where new connections are turned away.",
			droppedIn(t, d), droppedWhat(s, d)),
		Evidence: []string{
			fmt.Sprintf("its table had %d entries of at most %d at that moment, and none for this packet", d.ConntrackCount, d.ConntrackMax),
			"a rule that drops it there by chance looks the same: one of iptables-legacy in the table raw (`iptables-legacy -t raw -S`) or, before Linux 6.12, any ahead of connection tracking (`nft list ruleset`)",
		},
		Advice: "To be sure: `dmesg | grep \"table full\"`. If it says so, raise net.netfilter.nf_conntrack_max; if not, look for a rule.",
	}, true
}

// beforeTracking tells whether a packet died at a hook where connection tracking
// makes entries (nf_conntrack_proto.c), or where the kernel does not tell at which.
func beforeTracking(d *trace.Drop) bool {
	_, hook, known := strings.Cut(d.Description, "netfilter hook ")
	return !known || !strings.Contains(hook, "family bridge") && (strings.HasPrefix(hook, "PREROUTING") || strings.HasPrefix(hook, "OUTPUT"))
}

// tableFull allows for entries that ended between the kernel's verdict and the
// moment in which their number was read: microseconds, so fewer than one in a
// hundred.
func tableFull(d *trace.Drop) bool {
	return d.ConntrackMax > 0 && uint64(d.ConntrackCount)*100 >= uint64(d.ConntrackMax)*99
}
