package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedByNetfilter finds a packet that a firewall rule dropped. Proof: the
// kernel's drop with the reason NETFILTER_DROP or, on kernels before 5.17, in a
// function that runs the rules (net/netfilter/core.c, nf_tables_core.c).
func droppedByNetfilter(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if !byNetfilter(d) {
		return trace.Finding{}, false
	}
	advice := "Find the rule there: `nft list ruleset`, `iptables-save -c` (counters that rise); in Kubernetes, the NetworkPolicies of both pods."
	if s.exchange.Connects() {
		advice = "Let TCP port 53 pass too, large answers need it: `nft list ruleset` there; in Kubernetes, the NetworkPolicies of both pods."
	}
	if evidence := noEndpoints(s.exchange); d.Message == trace.MessageQuery && evidence != nil {
		return trace.Finding{
			Code:     DroppedByNetfilter,
			Summary:  fmt.Sprintf("The Service %s has no ready endpoint: %s was rejected in %s.", s.exchange.Server.Service, s.name(), droppedWhere(t, d)),
			Evidence: append(evidence, "kube-proxy rejects what is sent to such a Service, by a rule of netfilter"),
			Advice:   noEndpointsAdvice,
		}, true
	}
	return trace.Finding{
		Code:    DroppedByNetfilter,
		Summary: fmt.Sprintf("A firewall rule dropped %s in %s.", droppedWhat(s, d), droppedWhere(t, d)),
		Advice:  advice,
	}, true
}

const noEndpointsAdvice = "See why its pods are missing or not ready (`kubectl get endpointslices -A`, `kubectl describe pod`), and its selector."

// noEndpoints quotes Kubernetes where a Service had no ready endpoint.
func noEndpoints(ex *trace.Exchange) []string {
	if ex.Server == nil || ex.Server.ServiceState != trace.ServiceNoEndpoints {
		return nil
	}
	return []string{fmt.Sprintf("the EndpointSlices of %s list no address as ready", ex.Server.Service)}
}

func byNetfilter(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NETFILTER_DROP"
	}
	return d.Where == "nf_hook_slow" || d.Where == "nft_do_chain"
}
