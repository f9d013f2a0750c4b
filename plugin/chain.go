package dnstrace

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// The plugins of a server block are made from the last to the first, each with the next one.
// After the last directive, what makes this plugin and each after it is wrapped, so that it
// gets a hop for its next handler. CoreDNS still gets, and registers, the handlers
// themselves: others look for them by type.

// unwrapped are the server blocks that are parsed just now.
type unwrapped struct {
	mu         sync.Mutex
	directives []string // after which wrap is called
	blocks     []unwrappedBlock
}

type unwrappedBlock struct {
	context caddy.Context
	config  *dnsserver.Config
	first   int // where this plugin is in config.Plugin
	plugin  *Dnstrace
}

// maxUnwrapped bounds what Corefiles that are wrong, or are only validated, leave behind.
const maxUnwrapped = 64

// parsing is the registry of what wrap is still to be called for.
var parsing unwrapped

// add notes that d was just added to a server block.
func (u *unwrapped) add(c *caddy.Controller, config *dnsserver.Config, d *Dnstrace) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.blocks) >= maxUnwrapped {
		u.blocks = slices.DeleteFunc(u.blocks, func(b unwrappedBlock) bool { return b.context != c.Context() })
	}
	u.blocks = append(u.blocks, unwrappedBlock{c.Context(), config, len(config.Plugin) - 1, d})
	// The order of the directives is known by now, and the last one is the same in all Corefiles.
	if last := dnsserver.Directives[len(dnsserver.Directives)-1]; !slices.Contains(u.directives, last) {
		u.directives = append(u.directives, last)
		caddy.RegisterParsingCallback("dns", last, u.wrap)
	}
}

// wrap wraps the plugins of a Corefile whose directives are done.
func (u *unwrapped) wrap(c caddy.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.blocks = slices.DeleteFunc(u.blocks, func(b unwrappedBlock) bool {
		if b.context == c {
			b.plugin.wrap(b.config.Plugin[b.first:])
		}
		return b.context == c
	})
	return nil
}

// wrap wraps the makers of d and of the handlers after it.
func (d *Dnstrace) wrap(makers []plugin.Plugin) {
	for i, make := range makers {
		makers[i] = func(next plugin.Handler) plugin.Handler {
			if next == nil {
				return make(nil)
			}
			return make(d.newHop(next))
		}
	}
}

// hop is what a handler has for its next one: it notes when that is called and when it returns.
type hop struct {
	next   plugin.Handler
	name   string
	hidden bool        // the handler does not get to see the span
	silent atomic.Bool // a cache that does not say there what it did
	plugin *Dnstrace
	known  func() *settings
}

func (d *Dnstrace) newHop(next plugin.Handler) *hop {
	h := &hop{next: next, name: next.Name(), hidden: isOrdinary(next), plugin: d}
	// Handlers find out some of it when they start, which is after this plugin does.
	h.known = sync.OnceValue(func() *settings { return d.settingsOf(next) })
	return h
}

// hides reports whether the handler does not get to see the span of its call. A cache sees it until
// it has answered without saying there what it did.
func (h *hop) hides() bool { return h.hidden && (h.name != cachePlugin || h.silent.Load()) }

// Name implements plugin.Handler.
func (h *hop) Name() string { return h.name }

// ServeDNS implements plugin.Handler.
func (h *hop) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	above, hidden := ctx.Value(hiddenKey{}).(*span)
	if hidden {
		c := above.newCall(ctx, h)
		return c.span.serve(&c.ctx, h, w, r)
	}
	// Behind a handler that sees our spans, CoreDNS has started one for us, unless the
	// handler called us directly.
	s, ok := ot.SpanFromContext(ctx).(*span)
	switch {
	case !ok:
		return h.next.ServeDNS(ctx, w, r)
	case s.name == h.name && s.calledBy == nil:
		return s.serve(ctx, h, w, r)
	}
	return plugin.NextOrFailure(s.name, h, ctx, w, r)
}

// call is the span of a handler, and the context that it is called with.
type call struct {
	span span
	ctx  callContext
}

// callContext is a context with the span of a handler.
type callContext struct {
	context.Context
	span   *span
	hidden bool
	other  ot.Span // of another tracer, that the handler sees instead, if it is not in Context
}

// hiddenKey is the context key of a span that its handler does not see.
type hiddenKey struct{}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	switch {
	case key == (hiddenKey{}):
		if c.hidden {
			return c.span
		}
		return nil
	case key != spanKey:
		return c.Context.Value(key)
	case !c.hidden:
		return c.span
	case c.other != nil:
		return c.other
	}
	s := c.Context.Value(key)
	if ours, ok := s.(*span); ok {
		s = nil
		if ours.Span != nothing {
			s = ours.Span
		}
	}
	return s
}

// spanOf returns the span of ours that ctx belongs to, or nil.
func spanOf(ctx context.Context) *span {
	if s, ok := ctx.Value(hiddenKey{}).(*span); ok {
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
