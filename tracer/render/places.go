package render

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// Names that places have on a waterfall; the head says what they are.
const (
	placeClient   = "client"
	placeCoreDNS  = "CoreDNS"
	placeServer   = "server" // a server that wrote no record
	placeUpstream = "upstream"
	placeNode     = "node"
)

// place is a network namespace as a reader knows it.
type place struct {
	name  string
	netns uint32
	alias string // its name under /run/netns, if it has one
}

// String says which namespace it is.
func (p place) String() string {
	if p.alias != "" {
		return "netns " + clean(p.alias)
	}
	return fmt.Sprintf("netns %d", p.netns)
}

// places names the network namespaces of one trace by the part they have in it.
type places struct {
	list []place
}

func newPlaces(t *trace.Trace) *places {
	p := &places{}
	server := placeServer
	if t.Query != nil {
		server = placeCoreDNS
	}
	if t.Exchange != nil {
		p.ends(t.Exchange, placeClient, server, t.Query != nil)
	}
	p.upstreams(t.Upstreams, server)
	for _, e := range exchanges(t) {
		for _, s := range e.Path {
			p.between(s.NetNS, s.NetNSName)
		}
		if e.Drop != nil {
			p.between(e.Drop.NetNS, e.Drop.NetNSName)
		}
	}
	return p
}

func (p *places) upstreams(list []trace.Upstream, server string) {
	for i := range list {
		u := &list[i]
		if u.Exchange != nil {
			p.ends(u.Exchange, server, placeUpstream, u.Query != nil)
		}
		p.upstreams(u.Upstreams, placeUpstream)
	}
}

// ends names the two ends of an exchange, as far as what was seen proves them:
// who sends a packet first, and in whose namespace a socket took it. arrived
// tells that the server has a record of the query.
func (p *places) ends(e *trace.Exchange, client, server string, arrived bool) {
	var lastQuery, firstResponse *trace.Sighting
	for i := range e.Path {
		s := &e.Path[i]
		switch {
		case s.Message == trace.MessageQuery:
			if lastQuery == nil && s.Direction == trace.DirectionTX {
				p.name(s.NetNS, s.NetNSName, client)
			}
			lastQuery = s
		case firstResponse == nil:
			firstResponse = s
		}
	}
	switch {
	case firstResponse != nil && firstResponse.Direction == trace.DirectionTX:
		p.name(firstResponse.NetNS, firstResponse.NetNSName, server)
	case arrived && lastQuery != nil && lastQuery.Direction == trace.DirectionRX:
		p.name(lastQuery.NetNS, lastQuery.NetNSName, server)
	}
	if d := e.Drop; d != nil && strings.Contains(d.Reason, "SOCKET") {
		if d.Message == trace.MessageQuery {
			p.name(d.NetNS, d.NetNSName, server)
		} else {
			p.name(d.NetNS, d.NetNSName, client)
		}
	}
}

// name gives a namespace its name, unless it has one.
func (p *places) name(netns uint32, alias, name string) {
	if p.find(netns) == nil {
		p.list = append(p.list, place{name: name, netns: netns, alias: alias})
	}
}

// between names a namespace on the way: what forwards packets is the node. A
// second one goes by its own name, or its number.
func (p *places) between(netns uint32, alias string) {
	if p.find(netns) != nil {
		return
	}
	name := placeNode
	switch {
	case !p.named(placeNode):
	case alias != "":
		name = fit(clean(alias), placeColumns)
	default:
		name = fmt.Sprint(netns)
	}
	p.list = append(p.list, place{name: name, netns: netns, alias: alias})
}

func (p *places) find(netns uint32) *place {
	for i := range p.list {
		if p.list[i].netns == netns {
			return &p.list[i]
		}
	}
	return nil
}

func (p *places) named(name string) bool {
	for _, x := range p.list {
		if x.name == name {
			return true
		}
	}
	return false
}

// of returns the name of a namespace of the trace.
func (p *places) of(netns uint32) string {
	if x := p.find(netns); x != nil {
		return x.name
	}
	return ""
}

// exchanges lists the exchanges of a trace.
func exchanges(t *trace.Trace) []*trace.Exchange {
	var list []*trace.Exchange
	if t.Exchange != nil {
		list = append(list, t.Exchange)
	}
	var collect func([]trace.Upstream)
	collect = func(upstreams []trace.Upstream) {
		for i := range upstreams {
			if upstreams[i].Exchange != nil {
				list = append(list, upstreams[i].Exchange)
			}
			collect(upstreams[i].Upstreams)
		}
	}
	collect(t.Upstreams)
	return list
}
