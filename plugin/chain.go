package dnstrace

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// chain makes the handlers after this plugin again, now with a hop before each, which CoreDNS does not provide for. It
// is called when CoreDNS has made them, from the last to the first, and makes this plugin: makers only set the next
// handler, and CoreDNS also calls them once for each address of a server block. The handlers do not change their types,
// by which others look them up.
func (d *Dnstrace) chain(makers []plugin.Plugin) (next plugin.Handler) {
	for _, make := range slices.Backward(makers) {
		next = d.newHop(make(next))
	}
	return next
}

// hop stands before a handler, and records when it is called and when it returns.
type hop struct {
	next   plugin.Handler
	name   string
	hidden bool        // the handler does not see its span
	silent atomic.Bool // a cache that does not tag its span with its status
	plugin *Dnstrace
	known  func() *settings
}

func (d *Dnstrace) newHop(next plugin.Handler) *hop {
	h := &hop{next: next, name: next.Name(), hidden: isOrdinary(next), plugin: d}
	// Some handlers learn them when they start, which is after this plugin does.
	h.known = sync.OnceValue(func() *settings { return d.settingsOf(next) })
	return h
}

// hides reports whether the handler does not see the span of its call. A cache sees it until it has answered without
// tagging it with its status.
func (h *hop) hides() bool { return h.hidden && (h.name != cachePlugin || h.silent.Load()) }

// Name implements plugin.Handler.
func (h *hop) Name() string { return h.name }

// ServeDNS implements plugin.Handler.
func (h *hop) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	s := spanOf(ctx)
	switch {
	case s == nil:
		return h.next.ServeDNS(ctx, w, r)
	case !s.hidden && s.name == h.name && s.calledBy == nil: // CoreDNS started it for this call
		return s.serve(ctx, h, w, r)
	}
	c := s.newCall(ctx, h)
	return c.serve(c, h, w, r)
}

// hiddenKey is the context key of a span that is hidden from its handler.
type hiddenKey struct{}

// Value implements context.Context for the handler of a hop. Instead of a hidden span, the handler sees the other
// tracer's, if there is one.
func (s *span) Value(key any) any {
	switch {
	case key == (hiddenKey{}):
		if s.hidden {
			return s
		}
		return nil
	case key == spanKey && !s.hidden:
		return s
	}
	value := s.ctx.Value(key)
	if above, ok := value.(*span); ok && key == spanKey {
		if above.Span == nothing {
			return nil
		}
		return above.Span
	}
	return value
}

// spanOf returns the span of this package that ctx belongs to, or nil.
func spanOf(ctx context.Context) *span {
	if s, ok := ctx.Value(hiddenKey{}).(*span); ok {
		return s
	}
	s, _ := ot.SpanFromContext(ctx).(*span)
	return s
}

// spanKey is the context key of OpenTracing's active span. It is not exported, but passed to a context that is asked
// for the span.
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
