package diagnose

import (
	"fmt"
	"net/netip"

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
	if words != "" {
		f.Summary += ": " + words
	}
	f.Summary += "."
	switch to := destination(s.exchange, d); {
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
