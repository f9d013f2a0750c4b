package diagnose

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// drops names what the kernel said when it freed a packet of an exchange that
// got no response. A drop that a retransmission made good is no finding here.
func drops(t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, l := range legs(t) {
		ex := l.exchange
		if ex.Outcome != trace.OutcomeDropped || ex.Drop == nil || gaveUp(ex) {
			continue
		}
		f := describeDrop(l)
		f.Evidence = append(f.Evidence, dropEvidence(t, l)...)
		findings = append(findings, f)
	}
	return findings
}

func describeDrop(l leg) trace.Finding {
	d := l.exchange.Drop
	what := l.name()
	if d.Message == trace.MessageResponse {
		what = "the response to " + what
	}
	at := fmt.Sprintf("%s, %s", netns(d.NetNSName, d.NetNS), device(d.IfName))
	switch {
	case byNetfilter(d):
		return trace.Finding{
			Code:    DroppedByNetfilter,
			Summary: fmt.Sprintf("A firewall rule dropped %s in %s.", what, at),
			Advice:  "Look for the rule in that namespace: `nft list ruleset`, `iptables-save -c` (counters that rise); in Kubernetes, the NetworkPolicies of both pods.",
		}
	case noSocket(d):
		return trace.Finding{
			Code:    DroppedNoSocket,
			Summary: fmt.Sprintf("Nothing listened for %s: it was refused in %s.", what, at),
			Advice:  fmt.Sprintf("See that the server runs and listens on port %d there (`ss -lnp`), and that the Service's endpoints are ready.", l.exchange.ServerPort),
		}
	}
	return trace.Finding{
		Code:    DroppedOther,
		Summary: fmt.Sprintf("The kernel dropped %s in %s.", what, at),
		Advice:  "The reason is the kernel's own name (enum skb_drop_reason); routes and neighbours of that namespace are the first place to look: `ip route`, `ip neigh`.",
	}
}

func dropEvidence(t *trace.Trace, l leg) []string {
	ex, d := l.exchange, l.exchange.Drop
	reason := d.Reason
	if reason == "" {
		reason = "not given by this kernel"
	}
	where := d.Where
	if where == "" {
		where = "a function whose name is hidden (kernel.kptr_restrict)"
	}
	evidence := []string{fmt.Sprintf("kernel drop of the %s %s after the first packet: reason %s, in %s", d.Message, since(d.Offset), reason, where)}
	if last, ok := lastSighting(ex, d.Message); ok {
		evidence = append(evidence, last)
	}
	if ex.Transmissions > 1 {
		evidence = append(evidence, fmt.Sprintf("it was sent %d times", ex.Transmissions))
	}
	if !l.upstream {
		evidence = append(evidence, recorded(t))
	}
	return evidence
}

// byNetfilter tells a drop by a rule: by its reason or, on kernels before 5.17,
// by the functions that run the rules (net/netfilter/core.c, nf_tables_core.c).
func byNetfilter(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NETFILTER_DROP"
	}
	return d.Where == "nf_hook_slow" || d.Where == "nft_do_chain"
}

// noSocket tells a drop because no socket is bound to the port: by its reason,
// or by the functions that look the socket up.
func noSocket(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NO_SOCKET"
	}
	return strings.HasPrefix(d.Where, "__udp") || d.Where == "tcp_v4_rcv" || d.Where == "tcp_v6_rcv"
}

// recorded says what the server's own record says of the lookup.
func recorded(t *trace.Trace) string {
	switch {
	case t.Query != nil:
		return fmt.Sprintf("CoreDNS recorded the query: outcome %s, rcode %s", t.Query.Outcome, orNone(t.Query.RCode))
	case notRecorded(t):
		return "CoreDNS never recorded it, though it records other queries"
	}
	return "CoreDNS never recorded it: no query record of this lookup came"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
