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
	icmpFragmentation = 4
	icmpFiltered      = 13
	icmp6Unreachable  = 1 // type
	icmp6Route        = 0
	icmp6Address      = 3
	icmp6Port         = 4
	icmp6TooBig       = 2 // type
)

// icmpError explains a query that was refused with an ICMP error, and of which the kernel
// reported no drop here. Proof: the error, which quotes the query. It is a code of the
// drop that it tells of; who sent it is said only where that was seen.
func icmpError(t *trace.Trace) (trace.Finding, bool) {
	return icmpErrorAbout(t, subject{exchange: t.Exchange})
}

// icmpErrorAbout does so for a client's query, or one transmission of it.
func icmpErrorAbout(t *trace.Trace, s subject) (trace.Finding, bool) {
	ex := s.exchange
	if ex.ICMP == nil || ex.ICMP.Message != trace.MessageQuery {
		return trace.Finding{}, false
	}
	f := trace.Finding{Evidence: icmpEvidence(t, ex)}
	name := s.name()
	unreachable := portUnreachable(ex.ICMP)
	switch {
	case ex.ICMP.BPF:
		f.Code = DroppedByBPF
		f.Summary = fmt.Sprintf("An eBPF program refused %s with an ICMP error (%s) in %s.", name, icmpWords(ex.ICMP), icmpWhere(t, ex.ICMP))
		f.Advice = "The network plugin does that for what it cannot deliver, or may not (Cilium: `cilium-dbg service list`, `cilium-dbg monitor`)."
		if unreachable && noEndpoints(ex) != nil {
			f.Summary = fmt.Sprintf("The Service %s has no ready endpoint: an eBPF program refused %s in %s.", ex.Server.Service, name, icmpWhere(t, ex.ICMP))
			f.Evidence = append(f.Evidence, noEndpoints(ex)...)
			f.Advice = noEndpointsAdvice
		}
	case unreachable && noEndpoints(ex) != nil:
		f.Code = DroppedOther
		f.Summary = fmt.Sprintf("The Service %s has no ready endpoint: an ICMP error from %s refused %s%s.",
			ex.Server.Service, ex.ICMP.From, name, lastPlace(t, ex, trace.MessageQuery))
		f.Evidence = append(f.Evidence, noEndpoints(ex)...)
		f.Advice = noEndpointsAdvice
	case unreachable:
		f.Code = DroppedNoSocket
		f.Summary = fmt.Sprintf("%s says that the port of %s is closed: nothing listens there, or a firewall says so in its place.", ex.ICMP.From, name)
		f.Advice = fmt.Sprintf("See that the server runs and listens on port %d there (`ss -lnp`), and that the Service's endpoints are ready.", ex.ServerPort)
	case hostUnreachable(ex.ICMP) && translated(ex):
		f.Code = StaleEndpoint
		f.Summary = fmt.Sprintf("%s sent %s to %s, which %s cannot reach.", translator(ex), name, ex.NAT.ServerIP, ex.ICMP.From)
		f.Advice = fmt.Sprintf("If %s is no endpoint of the Service, an old entry leads there: `conntrack -D -p %s --reply-src %s` removes it.", ex.NAT.ServerIP, ex.Protocol, ex.NAT.ServerIP)
	default:
		return f, false
	}
	f.Evidence = append(f.Evidence, lastSightings(t, ex)...)
	return f, true
}

// icmpEvidence quotes the ICMP error about an exchange, and where it was seen first.
func icmpEvidence(t *trace.Trace, ex *trace.Exchange) []string {
	i := ex.ICMP
	if i == nil {
		return nil
	}
	quote := fmt.Sprintf("ICMP error type %d code %d from %s, %s after the query", i.Type, i.Code, i.From, since(i.Offset))
	switch {
	case i.NetNS == 0:
	case i.Direction == trace.DirectionTX:
		quote += ", first seen as it was sent in " + icmpWhere(t, i)
	case i.Direction == trace.DirectionRX:
		quote += ", first seen as it came in, in " + icmpWhere(t, i)
	default:
		quote += ", which the kernel dropped in " + icmpWhere(t, i)
	}
	evidence := []string{quote}
	if i.BPF {
		evidence = append(evidence, fmt.Sprintf("the error is the %s itself, rewritten: it is in the same packet buffer, and no socket sent it", packet(ex, i.Message)))
	}
	return evidence
}

// icmpWhere is where an ICMP error was seen first.
func icmpWhere(t *trace.Trace, i *trace.ICMP) string {
	return fmt.Sprintf("%s, %s", namespace(t, i.Node, i.NetNSName, i.NetNS), device(i.IfName))
}

// icmpWords is what an ICMP error means.
func icmpWords(i *trace.ICMP) string {
	if name := i.Name(); name != "" {
		return name
	}
	return fmt.Sprintf("type %d code %d", i.Type, i.Code)
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
