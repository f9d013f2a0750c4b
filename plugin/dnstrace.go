// Package dnstrace is a CoreDNS plugin that records what CoreDNS did with each query: the plugins it passed,
// what the cache said, every upstream attempt, and what was answered. Observers outside CoreDNS name the same
// lookup alike, because its trace id is computed from what is on the wire.
package dnstrace

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

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

	zones       zones // of what is recorded
	serverZones zones // of the server block, for the record's zone

	accept     networks // of the clients whose trace context is adopted
	stamp      stampPolicy
	optionCode uint16 // of the EDNS option with it

	sample float64       // the share of ordinary queries that is recorded
	slow   time.Duration // a query that takes this long is recorded always

	buffer  int
	outputs []*output
	servers sync.Map  // *serverMetrics by the name of the server
	warned  sync.Once // that attempts are missing
}

// Name implements plugin.Handler.
func (d *Dnstrace) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
//
// Its frame, and that of responseWriter.WriteMsg, are kept small: CoreDNS starts a goroutine for every query,
// whose stack is copied each time it gets too small, and what is after us in the chain goes deep.
func (d *Dnstrace) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	growStack(0)
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
	rcode, err := d.Next.ServeDNS(&q.top, &q.writer, r)
	returned = true
	q.end(r, rcode, err)
	return rcode, err
}

// pass hands on a query that makes no record of its own. A lookup that a plugin makes through the server
// itself, such as the target of a CNAME, is a hop of the query that set it off.
func (d *Dnstrace) pass(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if spanOf(ctx) != nil {
		return d.newHop(passing{d}).ServeDNS(ctx, w, r)
	}
	return plugin.NextOrFailure(pluginName, d.Next, ctx, &responseWriter{ResponseWriter: w, code: d.optionCode}, r)
}

// passing is this plugin where a lookup passes it again.
type passing struct{ *Dnstrace }

// ServeDNS implements plugin.Handler.
func (p passing) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(pluginName, p.Next, ctx, w, r)
}

// zones are zones of a Corefile, absolute and in lower case.
type zones []string

// match returns the longest of the zones that name is in, or "". It is plugin.Zones.Matches without what that
// allocates for each zone but the root, which is more than all else here.
func (z zones) match(name string) string {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		for _, zone := range z {
			if strings.EqualFold(name[off:], zone) {
				return zone
			}
		}
	}
	if slices.Contains(z, ".") {
		return "."
	}
	return ""
}

// stackRoom is what the plugins after this one need of the stack when they ask an upstream: with what is in use
// by now more than 8 kB, so that it grows to 16 kB.
const stackRoom = 6656

// growStack makes sure of stackRoom bytes of stack. The goroutine of a query starts with a small one, and outgrows
// it twice before the answer of an upstream is unpacked. Each time it is copied, and every frame on it mended: here,
// with half as many frames, once is enough, which saves more than all else in this plugin costs a forwarded
// query. The check at the beginning of a function is what makes the stack grow, so nothing is touched.
//
//go:noinline
func growStack(touched int) byte {
	if touched == 0 {
		return 0
	}
	var room [stackRoom]byte
	room[touched]++
	return room[0]
}
