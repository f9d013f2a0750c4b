package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedByNetfilter finds a packet that a firewall rule dropped. Proof: the
// kernel's drop with the reason NETFILTER_DROP or, where it gives none, in a function
// that runs the rules, or hands packets to processes for them (net/netfilter/core.c,
// nf_tables_core.c, nf_queue.c).
func droppedByNetfilter(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if !byNetfilter(d) {
		return trace.Finding{}, false
	}
	if evidence := noEndpoints(s.exchange); d.Message == trace.MessageQuery && evidence != nil {
		return trace.Finding{
			Code:     DroppedByNetfilter,
			Summary:  fmt.Sprintf("The Service %s has no ready endpoint: %s was rejected in %s.", s.exchange.Server.Service, s.name(), droppedWhere(t, d)),
			Evidence: append(evidence, "kube-proxy rejects what is sent to such a Service, by a rule of netfilter"),
			Advice:   noEndpointsAdvice,
		}, true
	}
	if strings.Contains(d.Description, "NFQUEUE") {
		return trace.Finding{
			Code:    DroppedByNetfilter,
			Summary: fmt.Sprintf("A firewall rule handed %s to NFQUEUE, and no process took it: dropped in %s.", droppedWhat(s, d), droppedWhere(t, d)),
			Advice:  "See that the process runs and keeps up (/proc/net/netfilter/nfnetlink_queue); `--queue-bypass` lets pass what nobody takes.",
		}, true
	}
	whose, advice := ruleOf(d)
	if s.exchange.Connects() {
		advice = "Let TCP port 53 pass too, large answers need it: `nft list ruleset` there; in Kubernetes, the NetworkPolicies of both pods."
	}
	did, where, evidence := "dropped "+droppedWhat(s, d), droppedWhere(t, d), []string(nil)
	switch with := rejectedWith(s.exchange, d); {
	case with != "":
		did, where = "rejected "+droppedWhat(s, d)+" "+with, ruledWhere(t, d)
		evidence = append(icmpEvidence(t, s.exchange), resetEvidence(s.exchange)...)
		if i := s.exchange.ICMP; i != nil && portUnreachable(i) && !translated(s.exchange) && hookName(d) != hookOutput {
			advice = "Find the rule (`nft list ruleset`): kube-proxy has one for a Service without ready endpoints, see `kubectl get endpointslices -A`."
		}
	case failsToSend(s.exchange, d) && d.IfName != "":
		did, where = "rejected "+droppedWhat(s, d), ruledWhere(t, d)+": sending it failed there (EPERM)"
		evidence = []string{"before it sends the ICMPv6 error that rejects it, the kernel gives what is being sent the loopback device, where it was dropped"}
	case failsToSend(s.exchange, d):
		did, where = "rejected or dropped "+droppedWhat(s, d), ruledWhere(t, d)+": sending it failed there (EPERM)"
		evidence = []string{"what a rule rejects or drops as it is sent fails with EPERM (operation not permitted)", "no ICMP error that tells its sender was seen"}
	}
	if s.attempt != nil && s.attempt.Error != "" {
		evidence = append(evidence, "CoreDNS's "+endedAs(s.attempt))
	}
	return trace.Finding{
		Code:     DroppedByNetfilter,
		Summary:  fmt.Sprintf("A firewall rule%s %s in %s.", whose, did, where),
		Evidence: evidence,
		Advice:   advice,
	}, true
}

// hookOutput is where what is sent meets rules.
const hookOutput = "OUTPUT"

const loopback = "lo"

// ruledWhere is where a rule rejected a packet, and by which hook: one that is being sent has no
// device yet, and its hook says so.
func ruledWhere(t *trace.Trace, d *trace.Drop) string {
	where, hook := droppedWhere(t, d), hookName(d)
	if hook == "" {
		return where
	}
	if hook == hookOutput && (d.IfName == "" || d.IfName == loopback) {
		where = droppedIn(t, d)
	}
	return where + " (hook " + hook + ")"
}

// hookName is the hook of a rule, as iptables and nftables name it; empty if it is unknown.
func hookName(d *trace.Drop) string {
	_, hook, ok := strings.Cut(d.Description, "netfilter hook ")
	if !ok {
		return ""
	}
	hook, _, _ = strings.Cut(hook, ", ")
	hook, _, _ = strings.Cut(hook, " (")
	return hook
}

// failsToSend tells whether a rule met a datagram where it was sent, so that the kernel told the
// process that sent it (__ip_local_out in net/ipv4/ip_output.c). It has no device yet, but for
// what is rejected over IPv6 (nf_send_unreach6 in net/ipv6/netfilter/nf_reject_ipv6.c). The segments
// of TCP are the kernel's own.
func failsToSend(ex *trace.Exchange, d *trace.Drop) bool {
	return ex.Protocol == "udp" && hookName(d) == hookOutput && (d.IfName == "" || d.IfName == loopback && ex.ClientIP.Is6())
}

// rejectedWith goes on with the ICMP error, or the reset, with which a rule rejected a query; empty if none
// was seen. It is sent where the rule drops the query, or one transmission of it, just before; on a
// device only when the link address of the client is known, and within the sender's own namespace
// it is seen when its socket takes it, or is gone.
func rejectedWith(ex *trace.Exchange, d *trace.Drop) string {
	const before, after = trace.Seconds(time.Millisecond), trace.Seconds(time.Second)
	about := func(sent trace.Seconds) bool {
		return slices.ContainsFunc(ex.Drops, func(other trace.Drop) bool {
			return kindOf(&other) == kindOf(d) && sent > other.Offset-before && sent < other.Offset+after
		})
	}
	switch {
	case d.Message != trace.MessageQuery:
	case ex.ICMP != nil && ex.ICMP.Message == trace.MessageQuery && ex.ICMP.NetNS == d.NetNS && about(ex.ICMP.Offset):
		return fmt.Sprintf("by ICMP (%s)", icmpWords(ex.ICMP))
	case ex.Connects() && ex.Reset != nil && ex.Reset.Src.Addr() != ex.ClientIP && about(ex.Reset.Offset):
		return "by a TCP reset"
	}
	return ""
}

// ruleOf tells by the family of the chain whose rule it was, and where to look for it.
func ruleOf(d *trace.Drop) (whose, advice string) {
	_, family, _ := strings.Cut(d.Description, ", family ")
	switch {
	case strings.HasPrefix(family, "bridge"):
		return " of the bridge", "Find the rule there: `nft list ruleset bridge`, `ebtables -L --Lc` (counters that rise)."
	case strings.HasPrefix(family, "netdev"):
		return " of the device", "Find the rule there: `nft list ruleset netdev` (counters that rise)."
	case hookName(d) == hookOutput:
		return "", "Find the rule there (`nft list ruleset`, `iptables-save -c`): of a mesh's sidecar, a VPN, the host's own firewall, kube-proxy."
	case strings.HasPrefix(family, "inet"):
		return "", "Find the rule there: `nft list ruleset inet` (counters that rise); in Kubernetes, the NetworkPolicies of both pods."
	}
	return "", "Find the rule there: `nft list ruleset`, `iptables-save -c` (counters that rise); in Kubernetes, the NetworkPolicies of both pods."
}

const noEndpointsAdvice = "See why its pods are missing or not ready (`kubectl get endpointslices -A`, `kubectl describe pod`), and its selector."

// noEndpoints quotes Kubernetes where a Service had no ready endpoint.
func noEndpoints(ex *trace.Exchange) []string {
	if ex.Server == nil || ex.Server.ServiceState != trace.ServiceNoEndpoints {
		return nil
	}
	return []string{fmt.Sprintf("the EndpointSlices of %s list no address as ready", ex.Server.Service)}
}

// netfilterPlaces free what a rule, or connection tracking, refuses.
var netfilterPlaces = []string{"nf_hook_slow", "nf_hook_slow_list", "nf_queue", "nft_do_chain", "ipt_do_table", "ip6t_do_table", "ebt_do_table"}

func byNetfilter(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NETFILTER_DROP"
	}
	return slices.Contains(netfilterPlaces, d.Where)
}
