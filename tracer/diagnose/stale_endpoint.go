package diagnose

import (
	"fmt"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// staleEndpoint finds a query to a Service that was translated to an address
// which nobody has: a pod that is gone. Proof: the translation, by connection
// tracking, and that the kernel found no neighbour with, or no route to, that
// address.
func staleEndpoint(_ *memory, _ *trace.Trace, l leg) (trace.Finding, bool) {
	ex := l.exchange
	n, d := ex.NAT, ex.Drop
	if d.Message != trace.MessageQuery || n == nil || !n.ServerIP.IsValid() || !unreachable(d) {
		return trace.Finding{}, false
	}
	port := ex.ServerPort
	if n.ServerPort != nil {
		port = *n.ServerPort
	}
	endpoint := netip.AddrPortFrom(n.ServerIP, port)
	return trace.Finding{
		Code:     StaleEndpoint,
		Summary:  fmt.Sprintf("The Service sent %s to %s, an address that nobody has.", l.name(), endpoint),
		Evidence: []string{fmt.Sprintf("%s port %d was translated to %s (%s)", ex.ServerIP, ex.ServerPort, endpoint, n.Source)},
		Advice: fmt.Sprintf("Compare with the Service's endpoints. If %s is none of them, an old connection tracking entry leads there: `conntrack -D -p %s --reply-src %s`; if it is one, its pod is gone or not ready.",
			n.ServerIP, ex.Protocol, n.ServerIP),
	}, true
}

// unreachable tells drops for lack of a neighbour or route.
func unreachable(d *trace.Drop) bool {
	switch d.Reason {
	case "NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD", "NEIGH_CREATEFAIL", "IP_OUTNOROUTES", "IP_INNOROUTES":
		return true
	case "", "NOT_SPECIFIED":
		return d.Where == "neigh_invalidate" || d.Where == "arp_error_report" || d.Where == "ndisc_error_report"
	}
	return false
}
