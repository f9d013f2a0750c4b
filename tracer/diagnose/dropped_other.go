package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// droppedOther finds a packet that the kernel dropped for a reason that has no
// finding of its own. Proof: the drop, whose reason is quoted.
func droppedOther(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	why := dropreason.Of(d.Reason, d.Where)
	words := why.Description
	if words == "" {
		words = d.Reason
	}
	f := trace.Finding{
		Code:    DroppedOther,
		Summary: fmt.Sprintf("The kernel dropped %s in %s", droppedWhat(s, d), droppedWhere(t, d)),
		Advice:  why.Advice,
	}
	if rest, ok := strings.CutPrefix(words, "no route"); ok {
		if to := destination(s.exchange, d); to.IsValid() {
			words = cmp.Or(routeRefuses(s.exchange, d, to), fmt.Sprintf("no route to %s%s", to, rest))
			f.Advice = strings.ReplaceAll(f.Advice, "ADDRESS", to.String())
		}
	}
	if words != "" {
		f.Summary += ": " + words
	}
	if i := s.exchange.ICMP; i != nil && i.Message == d.Message && i.NetNS == d.NetNS {
		f.Evidence = icmpEvidence(t, s.exchange)
	}
	f.Summary += "."
	if words == "bridge" {
		f.Summary = fmt.Sprintf("The bridge in %s does not forward %s.", droppedWhere(t, d), droppedWhat(s, d))
	}
	switch to := destination(s.exchange, d); {
	case words == "bridge" && backToSender(s.exchange, d):
		f.Summary = fmt.Sprintf("The Service %s led %s back to its sender: the bridge (no hairpin) dropped it in %s.", s.exchange.ServerIP, droppedWhat(s, d), droppedWhere(t, d))
		f.Advice = fmt.Sprintf("A server that asks itself: take %s out of its upstreams. Else `bridge link set dev %s hairpin on`.", s.exchange.ServerIP, d.IfName)
	case dropreason.PeerDown(d.Reason, d.Where): // what is too large has a code of its own
		f.Summary = fmt.Sprintf("The kernel dropped %s in %s: the device at its other end is down.", droppedWhat(s, d), droppedWhere(t, d))
		f.Advice = dropreason.Of("DEV_READY", "").Advice
	case d.Reason == "OTHERHOST":
		f.Summary = fmt.Sprintf("%s has a wrong link address (MAC) for %s: discarded in %s, which has another.", capital(droppedWhat(s, d)), to, droppedWhere(t, d))
		if d.Message == trace.MessageQuery && translated(s.exchange) {
			f.Advice = fmt.Sprintf("If pod %s is gone: `conntrack -D -p %s --reply-src %s`; else the link address for it is old: `ip neigh`.", to, s.exchange.Protocol, to)
		}
	case unresolved(d):
		f.Summary = fmt.Sprintf("%s, or the gateway to it, did not answer ARP or ND: the kernel dropped %s in %s.", to, droppedWhat(s, d), droppedWhere(t, d))
		f.Advice = fmt.Sprintf("See there who has the address, and whether that host is up: `ip route get %s`, `ip neigh`.", to)
	}
	return f, true
}

// routeRefuses names the route that refuses a packet, by the ICMP error that the kernel sends for it
// (ip_error in net/ipv4/route.c); empty if that does not tell.
func routeRefuses(ex *trace.Exchange, d *trace.Drop, to netip.Addr) string {
	i := ex.ICMP
	if d.Where != "ip_error" || i == nil || i.Message != d.Message || i.NetNS != d.NetNS || i.Type != icmpUnreachable || !to.Is4() {
		return ""
	}
	switch i.Code {
	case icmpNet:
		return fmt.Sprintf("no route to %s", to)
	case icmpHost:
		return fmt.Sprintf("the route to %s is of the type unreachable", to)
	case icmpFiltered:
		return fmt.Sprintf("the route to %s is of the type prohibit", to)
	}
	return ""
}

// backToSender tells whether a Service led a query to the one that sent it, so that it would have to
// leave the bridge by the port that it came in by.
func backToSender(ex *trace.Exchange, d *trace.Drop) bool {
	return d.Message == trace.MessageQuery && ex.NAT != nil && ex.NAT.ServerIP == ex.ClientIP
}

// unresolved tells whether nobody had the link address of the next hop.
func unresolved(d *trace.Drop) bool { return dropreason.Unresolved(d.Reason, d.Where) }

// destination returns where a packet was to go that was dropped on its way out, which is
// behind the translation of its destination.
func destination(ex *trace.Exchange, d *trace.Drop) netip.Addr {
	nat := ex.NAT
	if d.Message == trace.MessageResponse {
		if nat != nil && nat.ClientIP.IsValid() {
			return nat.ClientIP
		}
		return ex.ClientIP
	}
	if client, known := ex.ClientPlace(); nat != nil && nat.ServerIP.IsValid() && !(known && client == d.Place()) {
		return nat.ServerIP
	}
	return ex.ServerIP
}
