// Package dnstrace is a CoreDNS plugin that records what CoreDNS did with each
// query: the plugins it passed, what the cache said, every upstream attempt,
// and what was answered. Observers outside CoreDNS name the same lookup alike,
// because its trace id is computed from what is on the wire.
package dnstrace

import (
	"context"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
)

// pluginName is the directive, and the name of the handler.
const pluginName = "dnstrace"

var log = clog.NewWithPlugin(pluginName)

// Dnstrace records the queries that pass it.
type Dnstrace struct {
	Next plugin.Handler
	// first is the hop of Next.
	first *hop

	// zones limits what is recorded, never what is answered.
	zones []string
	// serverZones are the zones of the server block, for the record's zone.
	serverZones []string

	// accept is the networks of the clients whose trace context is adopted,
	// stamp the upstreams that get ours, optionCode its EDNS option.
	accept     networks
	stamp      stampPolicy
	optionCode uint16

	policy  policy
	configs []outputConfig
	buffer  int
	outputs []*output
	chain   chain
}

// prepareChain looks at the plugins after this one, and puts its handlers
// between them.
func (d *Dnstrace) prepareChain() {
	d.chain = readChain(d.Next)
	if d.Next == nil {
		return
	}
	if !d.stamp.off() {
		d.Next, _ = d.addStampers(pluginName, d.Next)
	}
	d.Next = addHops(d.Next)
	d.first = newHop(d.Next)
}

// Name implements plugin.Handler.
func (d *Dnstrace) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
//
// Its frame, and that of responseWriter.WriteMsg, are kept small: CoreDNS starts
// a goroutine for every query, whose stack is copied each time it gets too
// small, and what is after us in the chain goes deep.
func (d *Dnstrace) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	growStack(false)
	f := d.begin(ctx, w, r)
	if len(r.Extra) > 0 {
		r = d.receive(w, r)
	}
	if f == nil {
		return d.pass(ctx, w, r)
	}
	returned := false
	defer func() {
		if !returned {
			f.unwind(recover())
		}
	}()
	rcode, err := d.Next.ServeDNS(&f.first.ctx, &f.writer, r)
	returned = true
	f.finish(rcode, err)
	return rcode, err
}

// pass hands on a query that makes no record of its own.
func (d *Dnstrace) pass(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if s := spanOf(ctx); s != nil && d.Next != nil {
		return d.serveNested(ctx, s, w, r)
	}
	return plugin.NextOrFailure(d.Name(), d.Next, ctx, &strippingWriter{w, d.optionCode}, r)
}

// records reports whether r is to be recorded. A query without a question
// never gets this far.
func (d *Dnstrace) records(r *dns.Msg) bool {
	return len(r.Question) > 0 && zones(d.zones).match(r.Question[0].Name) != ""
}

// nestedHop stands for this plugin where a lookup passes it again.
var nestedHop = hop{name: pluginName, exposed: true}

// serveNested passes on a lookup that a plugin makes through the server itself,
// such as the target of a CNAME. It belongs to the query that set it off.
func (d *Dnstrace) serveNested(ctx context.Context, s *span, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if s.name == pluginName {
		s.setQuestion(r)
	} else {
		// The server calls the first plugin of a chain without a span.
		c := s.startHop(ctx, &nestedHop, r)
		defer c.span.finish()
		s, ctx = c.span, c
	}
	nested := &nestedWriter{ResponseWriter: w, span: s}
	rcode, err := plugin.NextOrFailure(d.Name(), d.Next, ctx, nested, r)
	s.setError(err)
	return rcode, err
}
