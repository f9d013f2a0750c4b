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
	placeUnknown  = "unknown" // what waited in a socket that is gone has no namespace
)

// place is a network namespace of a node as a reader knows it.
type place struct {
	trace.Place
	name  string
	alias string // its name under /run/netns, if it has one
}

// places names the network namespaces of one trace by the part they have in it.
type places struct {
	list  []place
	nodes map[string]bool // of which there are records
}

func newPlaces(t *trace.Trace) *places {
	p := &places{nodes: map[string]bool{}}
	p.seeNodes(t)
	server := placeServer
	if t.Query != nil {
		server = placeCoreDNS
	}
	if t.Exchange != nil {
		p.ends(t.Exchange, placeClient, server, t.Query != nil)
	}
	p.upstreams(t.Upstreams, server)
	for _, e := range exchanges(t) {
		for _, s := range e.Path.All() {
			p.between(s.Place(), s.NetNSName)
		}
		for i := range e.Drops {
			p.between(e.Drops[i].Place(), e.Drops[i].NetNSName)
		}
	}
	return p
}

// seeNodes finds the nodes that a trace has records of.
func (p *places) seeNodes(t *trace.Trace) {
	see := func(node string) {
		if node != "" {
			p.nodes[node] = true
		}
	}
	for _, e := range exchanges(t) {
		see(e.Node)
		for _, s := range e.Path.All() {
			see(s.Node)
		}
		for i := range e.Drops {
			see(e.Drops[i].Node)
		}
	}
}

func (p *places) upstreams(list []trace.Upstream, server string) {
	for i := range list {
		u := &list[i]
		for _, e := range u.Exchanges() {
			p.ends(e, server, placeUpstream, u.Query != nil)
		}
		p.upstreams(u.Upstreams, placeUpstream)
	}
}

// ends names the two ends of an exchange, as far as what was seen proves them.
// recorded tells that the server has a record of the query.
func (p *places) ends(e *trace.Exchange, client, server string, recorded bool) {
	if s, ok := e.Sighting(e.Milestones.Query.Left); ok {
		p.name(s.Place(), s.NetNSName, client)
	} else if at, ok := e.ClientPlace(); ok {
		p.name(at, e.Drops[0].NetNSName, client) // dropped there before a device sent it
	}
	if s, ok := e.Sighting(e.Milestones.Response.Left); ok {
		p.name(s.Place(), s.NetNSName, server)
	} else if s, ok := e.Sighting(e.Milestones.Query.Arrived); ok && (recorded || s.Direction == trace.DirectionDelivered) {
		// A device alone does not tell whether a server was behind it.
		p.name(s.Place(), s.NetNSName, server)
	}
	for i := range e.Drops {
		d := &e.Drops[i]
		switch {
		case !strings.Contains(d.Reason, "SOCKET") && !d.InSocket():
		case d.Message == trace.MessageQuery:
			p.name(d.Place(), d.NetNSName, server)
		default:
			p.name(d.Place(), d.NetNSName, client)
		}
	}
}

// name gives a namespace its name, unless it has one.
func (p *places) name(at trace.Place, alias, name string) {
	if p.find(at) == nil {
		p.list = append(p.list, place{Place: at, name: name, alias: alias})
	}
}

// between names a namespace on the way: what forwards packets is the node. A
// second one goes by its own name, its node's, or its number.
func (p *places) between(at trace.Place, alias string) {
	if p.find(at) != nil {
		return
	}
	name := placeNode
	node := fit(clean(at.Node), placeColumns)
	switch {
	case at.NetNS == 0:
		name = placeUnknown
	case !p.named(placeNode):
	case alias != "":
		name = fit(clean(alias), placeColumns)
	case len(p.nodes) > 1 && node != "" && !p.named(node):
		name = node
	default:
		name = fmt.Sprint(at.NetNS)
	}
	p.list = append(p.list, place{Place: at, name: name, alias: alias})
}

func (p *places) find(at trace.Place) *place {
	for i := range p.list {
		if p.list[i].Place == at {
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
func (p *places) of(at trace.Place) string {
	if x := p.find(at); x != nil {
		return x.name
	}
	return ""
}

// describe says which namespace it is, and of which node where there are several.
func (p *places) describe(at trace.Place, alias string) string {
	text := fmt.Sprintf("netns %d", at.NetNS)
	switch {
	case at.NetNS == 0:
		text = "its netns is unknown"
	case alias != "":
		text = "netns " + clean(alias)
	}
	if len(p.nodes) > 1 && at.Node != "" {
		text += " of node " + clean(at.Node)
	}
	return text
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
			u := &upstreams[i]
			list = append(list, u.Exchanges()...)
			collect(u.Upstreams)
		}
	}
	collect(t.Upstreams)
	return list
}
