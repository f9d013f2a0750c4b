package exchange

import (
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// maxAsked bounds the addresses that one query is known to have gone to: a Service
// and its endpoint, and what retransmissions were sent to.
const maxAsked = 8

// goesTo notes an address that the query was sent to, before or after translation.
func (ex *open) goesTo(server netip.AddrPort) {
	if len(ex.asked) < maxAsked && !slices.Contains(ex.asked, server) {
		ex.asked = append(ex.asked, server)
	}
}

// sentTo notes where a query goes, as its packet and connection tracking say.
func (ex *open) sentTo(p *capture.Packet) {
	ex.goesTo(p.Dst)
	if p.NAT != nil {
		ex.goesTo(p.NAT.Original.Dst)
		ex.goesTo(p.NAT.Reply.Src)
	}
}

// mayAnswer tells whether a response comes from where the query went. Whoever knows
// or guesses port, ID and question can send one from elsewhere; the client's
// resolver does not take it (RFC 5452, section 9.1), and neither does the record. A
// multicast query is everybody's to answer (RFC 6762, section 6.7).
func (ex *open) mayAnswer(p *capture.Packet) bool {
	if slices.ContainsFunc(ex.asked, func(a netip.AddrPort) bool { return a == p.Src || a.Addr().IsMulticast() }) {
		return true
	}
	// The translated query may not have been seen, and connection tracking knows it.
	return p.NAT != nil && slices.Contains(ex.asked, p.NAT.Original.Dst)
}
