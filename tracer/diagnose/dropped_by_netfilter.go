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
	did, evidence := "dropped", rejectedWith(t, s.exchange, d)
	if evidence != nil {
		did = "rejected"
	}
	if evidence != nil && s.exchange.ICMP != nil && portUnreachable(s.exchange.ICMP) && !translated(s.exchange) {
		advice = "Find the rule (`nft list ruleset`): kube-proxy has one for a Service without ready endpoints, see `kubectl get endpointslices -A`."
	}
	return trace.Finding{
		Code:     DroppedByNetfilter,
		Summary:  fmt.Sprintf("A firewall rule%s %s %s in %s.", whose, did, droppedWhat(s, d), droppedWhere(t, d)),
		Evidence: evidence,
		Advice:   advice,
	}, true
}

// rejectedWith quotes the ICMP error, or the reset, with which a rule rejected a query: it was
// sent where the rule dropped it, just before.
func rejectedWith(t *trace.Trace, ex *trace.Exchange, d *trace.Drop) []string {
	const before = trace.Seconds(time.Millisecond)
	at := func(sent trace.Seconds) bool { return sent <= d.Offset && d.Offset-sent < before }
	switch {
	case d.Message != trace.MessageQuery:
	case ex.ICMP != nil && ex.ICMP.Message == trace.MessageQuery && ex.ICMP.NetNS == d.NetNS && at(ex.ICMP.Offset):
		return icmpEvidence(t, ex)
	case ex.Connects() && ex.Reset != nil && ex.Reset.Src.Addr() != ex.ClientIP && at(ex.Reset.Offset):
		return resetEvidence(ex)
	}
	return nil
}

// ruleOf tells by the family of the chain whose rule it was, and where to look for it.
func ruleOf(d *trace.Drop) (whose, advice string) {
	_, family, _ := strings.Cut(d.Description, ", family ")
	switch {
	case strings.HasPrefix(family, "bridge"):
		return " of the bridge", "Find the rule there: `nft list ruleset bridge`, `ebtables -L --Lc` (counters that rise)."
	case strings.HasPrefix(family, "netdev"):
		return " of the device", "Find the rule there: `nft list ruleset netdev` (counters that rise)."
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
