// Package dnstrace is a CoreDNS plugin that records what CoreDNS did with each
// query: the plugins it passed, what the cache said, every upstream attempt,
// and what was answered. Observers outside CoreDNS name the same lookup alike,
// because its trace id is computed from what is on the wire.
package dnstrace

import (
	"context"
	"sync"

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
	view    string    // of the server block, for the metrics
	servers sync.Map  // *serverMetrics by the name of the server
	warned  sync.Once // that attempts are missing
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
	q := d.begin(ctx, w, r)
	if len(r.Extra) > 0 {
		r = d.receive(ctx, w, r)
	}
	if q == nil {
		return d.pass(ctx, w, r)
	}
	returned := false
	defer func() {
		if !returned {
			q.unwind(r, recover())
		}
	}()
	rcode, err := d.Next.ServeDNS(&q.top.ctx, &q.writer, r)
	returned = true
	q.end(r, rcode, err)
	return rcode, err
}

// unwind closes a query in which a plugin panicked, with what it panicked with, or nil where its
// goroutine ends. CoreDNS recovers from panics, and the record helps to find them. It is called by
// what is deferred, so the stack is still whole when the panic is raised again.
func (q *query) unwind(r *dns.Msg, cause any) {
	q.endPanic(r, cause)
	if cause != nil {
		panic(cause)
	}
}

// pass hands on a query that makes no record of its own. A lookup that a plugin makes through the
// server itself, such as the target of a CNAME, is a hop of the query that set it off.
func (d *Dnstrace) pass(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if spanOf(ctx) != nil {
		return d.newHop(passing{d}).ServeDNS(ctx, w, r)
	}
	return plugin.NextOrFailure(d.Name(), d.Next, ctx, &strippingWriter{w, d.optionCode}, r)
}

// passing is this plugin where a lookup passes it again.
type passing struct{ plugin *Dnstrace }

// Name implements plugin.Handler.
func (passing) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (p passing) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(pluginName, p.plugin.Next, ctx, w, r)
}

// records reports whether r is to be recorded. A query without a question
// never gets this far.
func (d *Dnstrace) records(r *dns.Msg) bool {
	return len(r.Question) > 0 && zones(d.zones).match(r.Question[0].Name) != ""
}
