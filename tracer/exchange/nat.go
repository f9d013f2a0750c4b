package exchange

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// translation is the addresses after translation, where they are others.
type translation struct {
	server, client netip.AddrPort
	source         string // empty: none is known
}

// translated records the addresses after translation: from connection tracking, or because a
// query has other ones than before. A packet may be translated by several namespaces in
// turn; what the server sees counts.
func (t *Table) translated(ex *open, p *capture.Packet, source string) {
	if p.NAT != nil {
		t.tracked(ex, p)
		return
	}
	if p.Dst == ex.server && p.Src == ex.key.client {
		return
	}
	t.goes(ex, p.Dst)
	if source == "" || ex.nat.source == trace.NATConntrack {
		return
	}
	n := &ex.nat
	n.source = cmp.Or(n.source, source)
	if p.Dst != ex.server {
		n.server = p.Dst
	}
	if p.Src != ex.key.client {
		n.client = p.Src
	}
}

// translatedResponse does so for a response, for which only connection tracking has the
// addresses of the query.
func (t *Table) translatedResponse(ex *open, p *capture.Packet) {
	if p.NAT != nil && ex.nat.source != trace.NATConntrack {
		t.tracked(ex, p)
	}
}

// tracked notes what connection tracking says.
func (t *Table) tracked(ex *open, p *capture.Packet) {
	n := p.NAT
	x := &ex.nat
	if x.source != trace.NATConntrack {
		*x = translation{source: trace.NATConntrack} // connection tracking replaces a match
	}
	// What was dropped need not have gone where another sending of the query did.
	if a := n.Reply.Src; a != n.Original.Dst && (p.Kind != capture.Drop || !x.server.IsValid()) {
		x.server = a
	}
	if a := n.Reply.Dst; a != n.Original.Src {
		x.client = a
	}
	t.goes(ex, p.NAT.Original.Dst)
	t.goes(ex, p.NAT.Reply.Src)
	t.aliasClient(ex, p)
}

// goes notes an address that the query goes to.
func (t *Table) goes(ex *open, server netip.AddrPort) {
	if ex.server == server || slices.Contains(ex.servers, server) {
		return
	}
	if len(ex.servers) >= maxAliases {
		t.stats.Addresses++
		return
	}
	ex.servers = append(ex.servers, server)
}

// aliasClient makes an exchange known by the address that its client has from here on.
func (t *Table) aliasClient(ex *open, p *capture.Packet) {
	if ex.connects || p.NAT == nil || p.NAT.Reply.Dst == p.NAT.Original.Src {
		return
	}
	k := ex.key
	k.client = p.NAT.Reply.Dst
	k.netns = loopbackOf(k.client, p)
	t.alias(k, ex)
}

// fromElsewhere completes the translation from responses that came from an address to which
// the query was not seen to go, and reached the client from the address that it asked.
func (ex *open) fromElsewhere() {
	if ex.nat.source != "" || ex.guess == nil && (ex.conn == nil || ex.conn.source == "") {
		return
	}
	for i := range ex.marks {
		if !ex.marks[i].is(inResponse) {
			continue
		}
		src, _ := ex.path.Addresses(i)
		if ex.goesTo(src) || src == ex.sentDst {
			continue
		}
		source := trace.NATMatched
		if ex.journeys[ex.marks[i].journey].taken {
			source = trace.NATBuffer // the same packet came from the server's address
		}
		ex.nat = translation{server: src, source: source}
		return
	}
}
