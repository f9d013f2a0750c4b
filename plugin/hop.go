package dnstrace

import (
	"context"
	"reflect"
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// CoreDNS starts an OpenTracing span for each plugin that it hands a query to,
// if there is a span in the context: that shows every hop, at the price of five
// allocations each. So before the plugins that see every query stands a handler
// of ours, which notes when they are called and when they return, and hides the
// span. From the first plugin on that may make use of it, it is in the context.

// hop is the handler before a plugin.
type hop struct {
	Next plugin.Handler
	name string
	// exposed tells that the plugin gets to see the span.
	exposed bool
}

// newHop returns the handler before next.
func newHop(next plugin.Handler) *hop {
	return &hop{Next: next, name: next.Name(), exposed: exposes(next)}
}

// ordinary are the plugins of CoreDNS before the cache in the chain, and the
// cache itself. They ask no upstream and make no lookup through the server.
var ordinary = []string{"local", "dns64", "siit", "acl", "any", "chaos", "loadbalance", "tsig", cachePlugin}

// exposes reports whether h gets to see the span in its context: it may start
// spans of its own, for upstream attempts, or may make other lookups that pass
// through plugins which have no hop.
func exposes(h plugin.Handler) bool {
	v := reflect.Indirect(reflect.ValueOf(h))
	return v.Kind() != reflect.Struct || !isStock(v) || !slices.Contains(ordinary, h.Name())
}

// addHops puts a hop before each plugin after h, and returns what takes the
// place of h.
func addHops(h plugin.Handler) plugin.Handler {
	next := nextOf(h)
	if next == nil {
		return h
	}
	after := addHops(next)
	// A stamper stands directly before its plugin, and so does a forward before
	// another one: it looks whether the next is one.
	if _, ok := h.(*stamper); !ok && (h.Name() != forwardPlugin || next.Name() != forwardPlugin) {
		after = newHop(after)
	}
	return setNext(h, after)
}

// Name implements plugin.Handler.
func (h *hop) Name() string { return h.name }

// ServeDNS implements plugin.Handler.
func (h *hop) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if above, ok := ctx.Value(hopKey{}).(*span); ok {
		c := above.startHop(ctx, h, r)
		defer c.span.finish()
		return h.Next.ServeDNS(c, w, r)
	}
	// Behind a plugin that sees our spans, CoreDNS has started one for us, unless
	// the plugin called us directly.
	above, ok := ot.SpanFromContext(ctx).(*span)
	if ok && above.name != h.name {
		return plugin.NextOrFailure(above.name, h, ctx, w, r)
	}
	if ok {
		above.setQuestion(r)
	}
	return h.Next.ServeDNS(ctx, w, r)
}

// hopSpan is the span of a hop, with the context that it comes in.
type hopSpan struct {
	span
	ctx hopContext
}

// startHop starts the span of the plugin behind h, which is called with ctx and r,
// under s.
func (s *span) startHop(ctx context.Context, h *hop, r *dns.Msg) *hopContext {
	child := s.startSpan(h.name, h.exposed, question(r))
	c := &child.ctx
	c.Context, c.span, c.exposed = ctx, &child.span, h.exposed
	if h.exposed {
		child.other, _ = otherOf(ot.SpanFromContext(ctx)).(ot.Span)
	}
	child.meet(ctx)
	return c
}

// question returns what r asks for. It is a copy: autopath asks for one name after
// the other with the same message.
func question(r *dns.Msg) (q dns.Question) {
	if len(r.Question) > 0 {
		q = r.Question[0]
	}
	return q
}

// hopContext is the context of a hop.
type hopContext struct {
	context.Context
	span    *span
	exposed bool
	// other is the span of another tracer that the plugin sees where ours is not
	// exposed, if it is not in Context.
	other ot.Span
}

// hopKey is the context key of a span that is not exposed.
type hopKey struct{}

// Value implements context.Context.
func (c *hopContext) Value(key any) any {
	switch {
	case key == (hopKey{}):
		if c.exposed {
			return nil
		}
		return c.span
	case key != spanKey:
	case c.exposed:
		return c.span
	case c.other != nil:
		return c.other
	default:
		return otherOf(c.Context.Value(key))
	}
	return c.Context.Value(key)
}

// otherOf returns what v, the span in a context, is for those who do not see
// ours.
func otherOf(v any) any {
	s, ok := v.(*span)
	switch {
	case !ok:
		return v
	case s.other != nil:
		return s.other
	}
	return nil
}

// spanOf returns the span of ours that ctx belongs to, or nil.
func spanOf(ctx context.Context) *span {
	if s, ok := ctx.Value(hopKey{}).(*span); ok {
		return s
	}
	s, _ := ot.SpanFromContext(ctx).(*span)
	return s
}

// spanKey is the context key under which OpenTracing keeps the active span. It
// is not exported, so it is learned by asking for the span.
var spanKey = func() any {
	probe := &keyProbe{Context: context.Background()}
	ot.SpanFromContext(probe)
	return probe.key
}()

type keyProbe struct {
	context.Context
	key any
}

// Value implements context.Context.
func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}
