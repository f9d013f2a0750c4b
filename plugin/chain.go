package dnstrace

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// The plugins of a server block are made from the last to the first, each with the next one. After the last
// directive, what makes this plugin and each after it is wrapped, so that it gets a hop for its next handler.
// CoreDNS still gets, and registers, the handlers themselves: others look for them by type.

// unwrapped is the registry of what is to be wrapped when all directives of a Corefile are done.
var unwrapped struct {
	once sync.Once
	mu   sync.Mutex
	todo map[caddy.Context][]func()
}

// maxUnwrapped bounds what Corefiles that are wrong, or are only validated, leave behind.
const maxUnwrapped = 64

// wrapLater notes that d was just added to a server block.
func wrapLater(c *caddy.Controller, config *dnsserver.Config, d *Dnstrace) {
	u, first := &unwrapped, len(config.Plugin)-1
	u.once.Do(func() {
		u.todo = make(map[caddy.Context][]func())
		caddy.RegisterParsingCallback("dns", dnsserver.Directives[len(dnsserver.Directives)-1], wrapNow)
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.todo[c.Context()] == nil && len(u.todo) >= maxUnwrapped {
		clear(u.todo)
	}
	u.todo[c.Context()] = append(u.todo[c.Context()], func() { d.wrap(config.Plugin[first:]) })
}

// wrapNow wraps the plugins of a Corefile whose directives are done.
func wrapNow(c caddy.Context) error {
	unwrapped.mu.Lock()
	defer unwrapped.mu.Unlock()
	for _, wrap := range unwrapped.todo[c] {
		wrap()
	}
	delete(unwrapped.todo, c)
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
	s, seen := ot.SpanFromContext(ctx).(*span)
	if hidden, ok := ctx.Value(hiddenKey{}).(*span); ok {
		s, seen = hidden, false
	}
	switch {
	case s == nil:
		return h.next.ServeDNS(ctx, w, r)
	case seen && s.name == h.name && s.calledBy == nil: // CoreDNS has started it for us
		return s.serve(ctx, h, w, r)
	}
	c := s.newCall(ctx, h)
	return c.serve(c, h, w, r)
}

// hiddenKey is the context key of a span that its handler does not see.
type hiddenKey struct{}

// Value implements context.Context for the handler of a hop that a hop of ours called. Instead of a span that
// it does not see, it sees the other tracer's, if there is one.
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

// spanOf returns the span of ours that ctx belongs to, or nil.
func spanOf(ctx context.Context) *span {
	if s, ok := ctx.Value(hiddenKey{}).(*span); ok {
		return s
	}
	s, _ := ot.SpanFromContext(ctx).(*span)
	return s
}

// spanKey is the context key under which OpenTracing keeps the active span. It is not exported, so it is
// learned by asking for the span.
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
