package dnstrace

import (
	"context"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
	otlog "github.com/opentracing/opentracing-go/log"
)

// nothing is a span that does nothing.
var nothing = ot.NoopTracer{}.StartSpan("")

// tracer opens spans for CoreDNS, and for whoever else asks the span in a context for its tracer. grpc asks the
// global tracer, which CoreDNS does not set: this one ignores foreign spans.
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
				child.note(string(otext.PeerAddress), unknownPeer)
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

// ContextWithSpanHook implements ot.TracerContextWithSpanExtension. It gives a span its context.
func (tracer) ContextWithSpanHook(ctx context.Context, sp ot.Span) context.Context {
	s, ok := sp.(*span)
	if !ok {
		return ctx
	}
	if slices.Contains(dnsserver.Directives, s.name) { // CoreDNS names the span of a handler after it
		s.enter(ctx, nil, nil, nil)
	}
	if s.out != nil {
		s.out.prepare(s)
	}
	if hook, ok := s.Span.Tracer().(ot.TracerContextWithSpanExtension); ok {
		return hook.ContextWithSpanHook(ctx, s.Span)
	}
	return ctx
}

type ctx = context.Context

// span is part of a query: a hop, which is the call of a handler; an attempt, which is any span with a peer
// address; or neither. Plugins may use it after the query has ended. It is also its own SpanContext, and the
// context of its handler. part.go has what it records.
type span struct {
	ot.Span // of another tracer, or nothing
	ctx     // that the handler of a hop is called with, below this one
	q       *query
	parent  *span // nil at the top
	name    string
	out     *outgoing // stamps the attempts below it

	// Of a hop and an attempt.
	rec         *record
	isHop       bool
	isAttempt   bool
	began, took int64 // nanoseconds; since the query's time, and until now or open
	err         error // that the handler returned, or the span of the attempt has

	// Of a hop.
	entered  bool
	hidden   bool // its handler does not see it
	calledBy *hop // nil: CoreDNS started the span, and no hop is before the handler
	index    int
	nested   bool         // part of a nested lookup, which passed this plugin again
	asks     dns.Question // what it was called with; no name: unknown
	returned bool
	rcode    int
	says     string // the status with which a cache tagged it

	// Of an attempt. Its outcome is known when the record is closed.
	number           int
	address          string
	stamped, failed  bool // failed: the span has the error tag, or logged an error
	outcome, errText string
}

// hop returns the hop that s is or belongs to, or nil.
func (s *span) hop() *span {
	for s != nil && !s.isHop {
		s = s.parent
	}
	return s
}

// newChild opens a span under s.
func (s *span) newChild(name string) *span {
	child, began := new(span), s.q.now()
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	child.under(s, name, began)
	return child
}

// under makes s, which is new, a child of parent. The caller holds the lock.
func (s *span) under(parent *span, name string, began int64) {
	s.Span, s.q, s.parent, s.name, s.out = nothing, parent.q, parent, name, parent.out
	s.rec, s.began, s.took = parent.rec, began, open
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
	s.end(false, 0, nil)
	s.Span.Finish()
}

// FinishWithOptions implements ot.Span.
func (s *span) FinishWithOptions(o ot.FinishOptions) {
	s.end(false, 0, nil)
	s.Span.FinishWithOptions(o)
}

// SetTag implements ot.Span.
func (s *span) SetTag(key string, value any) ot.Span {
	s.note(key, value)
	s.Span.SetTag(key, value)
	return s
}

// LogFields implements ot.Span.
func (s *span) LogFields(fields ...otlog.Field) {
	for _, f := range fields {
		s.note("", f.Value())
	}
	s.Span.LogFields(fields...)
}

// LogKV implements ot.Span.
func (s *span) LogKV(keyValues ...any) {
	for _, value := range keyValues {
		s.note("", value)
	}
	s.Span.LogKV(keyValues...)
}
