package dnstrace

import (
	"context"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
	otlog "github.com/opentracing/opentracing-go/log"
)

// nothing is the span that does nothing.
var nothing = ot.NoopTracer{}.StartSpan("")

// none is the index of a hop or attempt that is not there.
const none = -1

// tracer opens spans for CoreDNS, and for whoever else asks the span in a context for its
// tracer. grpc asks the global tracer, which in CoreDNS is nobody's: ours does nothing for
// spans that are not ours.
type tracer struct{ ot.NoopTracer }

func init() {
	if !ot.IsGlobalTracerRegistered() {
		ot.SetGlobalTracer(tracer{})
	}
}

// StartSpan implements ot.Tracer.
func (tracer) StartSpan(name string, opts ...ot.StartSpanOption) ot.Span {
	for i, opt := range opts {
		ref, ok := opt.(ot.SpanReference)
		if !ok {
			continue
		}
		if parent, ok := ref.ReferencedContext.(*span); ok {
			child := parent.newChild(name)
			if parent.Span != nothing {
				rest := slices.Concat([]ot.StartSpanOption{ot.ChildOf(parent.Span.Context())}, opts[:i], opts[i+1:])
				child.Span = parent.Span.Tracer().StartSpan(name, rest...)
			}
			if isUnnamedAttempt(parent.name, name) {
				child.attempts(unknownPeer)
			}
			return child
		}
	}
	return nothing
}

// Inject implements ot.Tracer for the other tracer, if there is one.
func (tracer) Inject(sc ot.SpanContext, format, carrier any) error {
	if s, ok := sc.(*span); ok && s.Span != nothing {
		return s.Span.Tracer().Inject(s.Span.Context(), format, carrier)
	}
	return ot.ErrUnsupportedFormat
}

// ContextWithSpanHook implements ot.TracerContextWithSpanExtension: it is where a span
// learns about its context.
func (tracer) ContextWithSpanHook(ctx context.Context, sp ot.Span) context.Context {
	s, ok := sp.(*span)
	if !ok {
		return ctx
	}
	if slices.Contains(dnsserver.Directives, s.name) { // CoreDNS names spans of handlers after them
		s.enter(ctx, nil, nil)
	}
	if s.stamps {
		if o, ok := ctx.Value(outgoingKey{}).(*outgoing); ok {
			o.prepare(s)
		}
	}
	if hook, ok := s.Span.Tracer().(ot.TracerContextWithSpanExtension); ok {
		return hook.ContextWithSpanHook(ctx, s.Span)
	}
	return ctx
}

// span is a handle on a part of a query, which plugins may keep for as long as they like:
// what is known of the part is in the record, if it is a hop (the call of a handler) or an
// attempt (a span with the address of a peer, whoever opens it). All other spans are nothing
// of ours. A span is its own SpanContext.
type span struct {
	ot.Span // of another tracer, or nothing
	q       *query
	parent  *span // nil at the top
	name    string
	began   int64 // nanoseconds since the query's time

	// Set by the goroutine that opened the span, before others see it.
	calledBy *hop
	stamps   bool // attempts below it may get the option

	// Guarded by the lock of the query.
	ctx     context.Context // of a hop
	refresh *refresh        // that it is part of; nil: the query
	hop     int             // that it is, or is part of, in the record
	attempt int             // that it is, in the record
}

// newChild opens a span under s.
func (s *span) newChild(name string) *span {
	child := &span{began: s.q.now()}
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	child.under(s, name)
	return child
}

// newCall opens the span of a handler that is called with ctx, by one that does not see it.
func (s *span) newCall(ctx context.Context, h *hop) *call {
	q, began := s.q, int64(0)
	if s.parent != nil { // else it is the first one, which the query begins with
		began = q.now()
	}
	q.mu.Lock()
	var c *call
	if q.calls < len(q.inline) {
		c = &q.inline[q.calls]
		q.calls++
	} else {
		c = new(call)
	}
	c.span.began = began
	c.span.under(s, h.name)
	q.mu.Unlock()
	c.ctx = callContext{Context: ctx, span: &c.span, hidden: h.hides()}
	if other := ot.SpanFromContext(ctx); other != nil && !c.ctx.hidden {
		c.span.Span = other
	}
	return c
}

// under makes s, which is new, a span under parent. It is called with the lock.
func (s *span) under(parent *span, name string) {
	s.Span, s.q, s.parent, s.name, s.stamps = nothing, parent.q, parent, name, parent.stamps
	s.refresh, s.hop, s.attempt = parent.refresh, parent.hop, none
}

// serve calls the handler of a hop.
func (s *span) serve(ctx context.Context, h *hop, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	s.calledBy = h
	s.enter(ctx, h, r)
	if h.known().asks && h.plugin.stamps(r) {
		s.stamps = true
		o := newOutgoing(ctx, h, w, r)
		ctx, w, r = o, &o.writer, &o.msg
	}
	var res result // stays empty where it panics
	defer func() { s.leave(res) }()
	rcode, err := h.next.ServeDNS(ctx, w, r)
	res = result{true, int32(rcode), err}
	return rcode, err
}

// Context implements ot.Span.
func (s *span) Context() ot.SpanContext { return s }

// ForeachBaggageItem implements ot.SpanContext.
func (s *span) ForeachBaggageItem(handler func(k, v string) bool) {
	s.Span.Context().ForeachBaggageItem(handler)
}

// Tracer implements ot.Span.
func (s *span) Tracer() ot.Tracer { return tracer{} }

// Finish implements ot.Span.
func (s *span) Finish() {
	s.finish()
	s.Span.Finish()
}

// FinishWithOptions implements ot.Span.
func (s *span) FinishWithOptions(o ot.FinishOptions) {
	s.finish()
	s.Span.FinishWithOptions(o)
}

// SetTag implements ot.Span.
func (s *span) SetTag(key string, value any) ot.Span {
	switch key {
	case string(otext.PeerAddress):
		if peer, ok := value.(string); ok {
			s.attempts(peer)
		}
	case cacheStatusTag:
		switch value {
		case trace.CacheHit, trace.CacheMiss, trace.CacheStale:
			s.cached(value.(string))
		}
	case string(otext.Error):
		if failed, ok := value.(bool); ok && failed {
			s.failed(nil)
		}
	}
	s.Span.SetTag(key, value)
	return s
}

// LogFields implements ot.Span.
func (s *span) LogFields(fields ...otlog.Field) {
	for _, f := range fields {
		if err, ok := f.Value().(error); ok {
			s.failed(err)
		}
	}
	s.Span.LogFields(fields...)
}

// LogKV implements ot.Span.
func (s *span) LogKV(keyValues ...any) {
	for _, value := range keyValues {
		if err, ok := value.(error); ok {
			s.failed(err)
		}
	}
	s.Span.LogKV(keyValues...)
}
