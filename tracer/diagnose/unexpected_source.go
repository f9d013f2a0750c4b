package diagnose

import (
	"fmt"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// unexpectedSource finds a response from another address or port than was asked, which its
// receiver does not take (RFC 5452, section 9.1). Proof: it came to the receiver's
// namespace with the ID and the question of the query, and nothing that could be taken
// came.
func unexpectedSource(ex *trace.Exchange, r *trace.Rejection, who, whoBegins string) trace.Finding {
	asked := netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)
	f := trace.Finding{
		Code:     UnexpectedSource,
		Summary:  fmt.Sprintf("%s asked %s, got the response from %s and does not take it.", whoBegins, asked, r.Src),
		Evidence: rejections(ex),
		Advice:   fmt.Sprintf("See what sends from %s: a server that answers from another of its addresses, or a translation that was not undone.", r.Src),
	}
	switch {
	case translatedTo(ex, r.Src):
		f.Summary = fmt.Sprintf("The translation of %s was not undone: the response came from %s, and %s does not take it.", asked, r.Src, who)
		f.Advice = "See `net.bridge.bridge-nf-call-iptables` (must be 1), NOTRACK rules, entries that expire (`conntrack -L`), and the way back."
	case r.Src.Addr() == asked.Addr():
		f.Summary = fmt.Sprintf("%s asked port %d of %s, got the response from port %d and does not take it.", whoBegins, asked.Port(), asked.Addr(), r.Src.Port())
		f.Advice = fmt.Sprintf("See what sends from port %d there: a server that does not answer from the port that was asked, or a translation of ports.", r.Src.Port())
	}
	return f
}

// translatedTo tells whether an address is the one that a query was translated to.
func translatedTo(ex *trace.Exchange, addr netip.AddrPort) bool {
	n := ex.NAT
	return n != nil && n.ServerIP == addr.Addr() && n.ServerPort != nil && *n.ServerPort == addr.Port()
}

// fromElsewhere returns the last response that came from where nobody was asked, if all
// that came did; nil otherwise.
func fromElsewhere(ex *trace.Exchange) *trace.Rejection {
	var last *trace.Rejection
	for i := range ex.Rejected {
		r := &ex.Rejected[i]
		if r.Why != trace.RejectedAddress && r.Why != trace.RejectedPort {
			return nil
		}
		last = r
	}
	return last
}
