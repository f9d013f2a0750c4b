package diagnose

import (
	"fmt"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// staleEndpoint finds a query to a Service that was translated to an address
// at which nobody answers: a pod that is gone, or cannot be reached. Proof: the translation, by connection
// tracking or in the packet itself, and that the kernel found no neighbour with, or no route to, that
// address.
func staleEndpoint(_ *memory, _ *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	ex := s.exchange
	n := ex.NAT
	if d.Message != trace.MessageQuery || !translated(ex) || !unreachable(d) {
		return trace.Finding{}, false
	}
	endpoint, source := endpointOf(ex), n.Source
	evidence := listed(ex)
	if d.Dst.IsValid() && d.Dst != endpoint { // the client's other queries went elsewhere
		endpoint, source, evidence = d.Dst, "as in the dropped packet", nil
	}
	return trace.Finding{
		Code:     StaleEndpoint,
		Summary:  fmt.Sprintf("%s sent %s to %s, %s.", translator(ex), s.name(), endpoint, nobodyThere(d)),
		Evidence: append([]string{fmt.Sprintf("%s port %d was translated to %s (%s)", ex.ServerIP, ex.ServerPort, endpoint, source)}, evidence...),
		Advice: fmt.Sprintf("If %s is no endpoint any more: `conntrack -D -p %s --reply-src %s`; else its pod is gone, or its network is down.",
			endpoint.Addr(), ex.Protocol, endpoint.Addr()),
	}, true
}

// endpointOf is the server's address after translation, as far as is known last.
func endpointOf(ex *trace.Exchange) netip.AddrPort {
	port := ex.ServerPort
	if ex.NAT.ServerPort != nil {
		port = *ex.NAT.ServerPort
	}
	return netip.AddrPortFrom(ex.NAT.ServerIP, port)
}

// nobodyThere says what the drop proves of an address: a pod that has it may be deaf.
func nobodyThere(d *trace.Drop) string {
	if dropreason.Unresolved(d.Reason, d.Where) || d.Reason == "NEIGH_DEAD" || d.Reason == "" {
		return "which did not answer ARP or ND"
	}
	return "to which there is no route"
}

// goneEndpoint finds an unanswered query to a Service that was translated to an
// address which is none of the Service's endpoints: an old entry of connection
// tracking leads there, or kube-proxy is behind. Proof: the translation, and what
// the EndpointSlices said of the address when the query was sent; and no server
// is known to have got it.
func goneEndpoint(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	n := ex.NAT
	if !translated(ex) || n.Endpoint == nil || responseSeen(t) || t.Query != nil || delivered(ex) || ex.Milestones.Query.Read.Seen() {
		return trace.Finding{}, false
	}
	e := n.Endpoint
	if e.State != trace.EndpointUnlisted && (e.State != trace.EndpointRemoved || e.Since == nil || *e.Since > 0) {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code:     StaleEndpoint,
		Summary:  fmt.Sprintf("The Service sent the client's query to %s, which is none of its endpoints.", n.ServerIP),
		Evidence: append([]string{fmt.Sprintf("%s port %d was translated to %s (%s)", ex.ServerIP, ex.ServerPort, n.ServerIP, n.Source)}, listed(ex)...),
		Advice: fmt.Sprintf("Remove the old entry (`conntrack -D -p %s --reply-src %s`), and see that kube-proxy on the client's node is up to date.",
			ex.Protocol, n.ServerIP),
	}, true
}

// translated tells whether the server's address was seen to be translated on the
// way. That two packets have client, ID and question in common proves none.
func translated(ex *trace.Exchange) bool {
	n := ex.NAT
	return n != nil && n.ServerIP.IsValid() && n.Source != trace.NATMatched
}

// translator names what translated the server's address: only connection tracking,
// and Kubernetes, show that it was a Service's.
func translator(ex *trace.Exchange) string {
	if ex.NAT.Source == trace.NATConntrack || ex.NAT.Endpoint != nil {
		return "The Service"
	}
	return "A translation on the way"
}

// listed quotes what Kubernetes says of a translated server address.
func listed(ex *trace.Exchange) []string {
	e := ex.NAT.Endpoint
	if e == nil {
		return nil
	}
	service, pod := "the Service", ""
	if ex.Server != nil && ex.Server.Service != "" {
		service = ex.Server.Service
	}
	if e.Pod != "" {
		pod = fmt.Sprintf(" (pod %s)", e.Pod)
	}
	switch {
	case e.State == trace.EndpointUnlisted:
		return []string{fmt.Sprintf("no EndpointSlice of %s lists %s", service, ex.NAT.ServerIP)}
	case e.State == trace.EndpointReady:
		return []string{fmt.Sprintf("an EndpointSlice of %s lists %s%s as ready", service, ex.NAT.ServerIP, pod)}
	case e.State == trace.EndpointRemoved:
		return []string{fmt.Sprintf("the EndpointSlices of %s do not list %s%s any more%s", service, ex.NAT.ServerIP, pod, sinceWhen(e.Since))}
	}
	return []string{fmt.Sprintf("an EndpointSlice of %s lists %s%s as not ready%s", service, ex.NAT.ServerIP, pod, sinceWhen(e.Since))}
}

// sinceWhen says when something was so, seen from the query; empty if it is not
// known.
func sinceWhen(at *trace.Seconds) string {
	switch {
	case at == nil:
		return ""
	case *at > 0:
		return fmt.Sprintf(", since %s after the query", since(*at))
	}
	return fmt.Sprintf(", since %s before the query", since(-*at))
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
