package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// ICMP errors about a packet that could not be delivered (RFC 792, RFC 4443).
const (
	icmpUnreachable   = 3 // type
	icmpNet, icmpHost = 0, 1
	icmpPort          = 3
	icmp6Unreachable  = 1 // type
	icmp6Route        = 0
	icmp6Address      = 3
	icmp6Port         = 4
)

// icmpError explains a query that somebody beyond what the kernel shows here
// refused to deliver. Proof: the ICMP error that came back, which quotes the
// query. It is a code of the drop that it tells of.
func icmpError(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	if ex.ICMP == nil || ex.ICMP.Message != trace.MessageQuery {
		return trace.Finding{}, false
	}
	f := trace.Finding{Evidence: append(icmpEvidence(ex), lastSightings(t, ex)...)}
	switch {
	case portUnreachable(ex.ICMP) && noEndpoints(ex) != nil:
		f.Code = DroppedByNetfilter
		f.Summary = fmt.Sprintf("The Service %s has no ready endpoint: %s rejected the client's query.", ex.Server.Service, ex.ICMP.From)
		f.Evidence = append(f.Evidence, noEndpoints(ex)...)
		f.Advice = noEndpointsAdvice
	case portUnreachable(ex.ICMP):
		f.Code = DroppedNoSocket
		f.Summary = fmt.Sprintf("Nothing listens where the client's query went: %s says that the port is closed.", ex.ICMP.From)
		f.Advice = fmt.Sprintf("See that the server runs and listens on port %d there (`ss -lnp`), and that the Service's endpoints are ready.", ex.ServerPort)
	case hostUnreachable(ex.ICMP) && translated(ex):
		f.Code = StaleEndpoint
		f.Summary = fmt.Sprintf("%s sent the client's query to %s, which %s cannot reach.", translator(ex), ex.NAT.ServerIP, ex.ICMP.From)
		f.Advice = fmt.Sprintf("If %s is no endpoint of the Service, an old entry leads there: `conntrack -D -p %s --reply-src %s` removes it.", ex.NAT.ServerIP, ex.Protocol, ex.NAT.ServerIP)
	default:
		return f, false
	}
	return f, true
}

// icmpEvidence quotes the ICMP error about an exchange.
func icmpEvidence(ex *trace.Exchange) []string {
	if ex.ICMP == nil {
		return nil
	}
	return []string{fmt.Sprintf("ICMP error type %d code %d from %s, %s after the query", ex.ICMP.Type, ex.ICMP.Code, ex.ICMP.From, since(ex.ICMP.Offset))}
}

func portUnreachable(i *trace.ICMP) bool {
	if i.From.Is4() {
		return i.Type == icmpUnreachable && i.Code == icmpPort
	}
	return i.Type == icmp6Unreachable && i.Code == icmp6Port
}

func hostUnreachable(i *trace.ICMP) bool {
	if i.From.Is4() {
		return i.Type == icmpUnreachable && (i.Code == icmpNet || i.Code == icmpHost)
	}
	return i.Type == icmp6Unreachable && (i.Code == icmp6Route || i.Code == icmp6Address)
}
