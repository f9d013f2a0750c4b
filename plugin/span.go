package dnstrace

import (
	"context"
	"reflect"
	"time"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otlog "github.com/opentracing/opentracing-go/log"
)

// forward and grpc start an OpenTracing span for each attempt if they find a
// span in the context. The spans here are those, and the hops that they are
// under: they note times in the recording of their query, and keep the span of
// another tracer (the trace plugin's) going beside them.

const (
	cachePlugin   = "cache"
	forwardPlugin = "forward"
	grpcPlugin    = "grpc"
	peerAddress   = "peer.address" // ext.PeerAddress, which forward sets
	// grpcAttempt is the name that grpc gives to the span of an attempt, in the
	// global tracer. It does not say whereto.
	grpcAttempt = "query"
	unknownPeer = "?"
)

// The global tracer is nobody's in CoreDNS, and grpc asks only that one. Ours
// does nothing for spans that are not ours.
func init() {
	if !ot.IsGlobalTracerRegistered() {
		ot.SetGlobalTracer(tracer{})
	}
}

// open is the end of a span that is not finished.
const open = -1

// span is one plugin's part in a query, or one upstream attempt. It is its own
// SpanContext. Plugins may keep it for as long as they like, so it is never
// used again. All but use, parent, other and name is guarded by the lock of its
// query.
type span struct {
	front  *front     // nil for a refresh
	rec    *recording // never nil
	use    uint64     // the use of the recording that it belongs to
	parent *span      // nil for the first
	other  ot.Span
	name   string
	peer   string // an upstream attempt: whereto, or unknownPeer
	began  int64  // nanoseconds since the recording's start
	end    int64
	state  spanState
	// number counts the attempts of a query and the refreshes that it set off,
	// so that the spans of no two of them are the same.
	number  uint16
	refresh bool // a cache may work in the background: contexts matter
	stamper bool // a stamper stands before the hop, or before one above it
	stamped bool // the attempt went out with the option
	// desperate is an attempt of a forward that has marked all upstreams down.
	desperate bool
	// md identifies the metadata of the context that a cache ran in.
	md     uintptr
	nested *scope // a nested lookup: how it ended
	// asks is the question that a hop was called with, without a name where it is
	// not known: then it is that of the span above, or at the top the query's.
	asks dns.Question
}

type spanState uint8

const (
	stateRecorded  spanState = iota
	stateUndecided           // a child of a cache, until its context is seen
	stateIgnored             // too late or too many to be recorded
)

// tracer implements ot.Tracer.
type tracer struct{}

// StartSpan implements ot.Tracer.
func (tracer) StartSpan(name string, opts ...ot.StartSpanOption) ot.Span {
	for i, opt := range opts {
		ref, ok := opt.(ot.SpanReference)
		if !ok {
			continue
		}
		if parent, ok := ref.ReferencedContext.(*span); ok {
			var rest []ot.StartSpanOption
			if len(opts) > 1 {
				rest = append(append(rest, opts[:i]...), opts[i+1:]...)
			}
			child := parent.startChild(name, rest)
			if name == grpcAttempt && parent.name == grpcPlugin {
				child.setPeer(unknownPeer)
			}
			return child
		}
	}
	return ot.NoopTracer{}.StartSpan(name, opts...)
}

// Inject implements ot.Tracer for the other tracer, if there is one.
func (tracer) Inject(sc ot.SpanContext, format, carrier any) error {
	if s, ok := sc.(*span); ok && s.other != nil {
		return s.other.Tracer().Inject(s.other.Context(), format, carrier)
	}
	return ot.ErrUnsupportedFormat
}

// Extract implements ot.Tracer.
func (tracer) Extract(any, any) (ot.SpanContext, error) {
	return nil, ot.ErrSpanContextNotFound
}

// ContextWithSpanHook implements ot.TracerContextWithSpanExtension: it is where
// a span learns about its context.
func (tracer) ContextWithSpanHook(ctx context.Context, sp ot.Span) context.Context {
	s, ok := sp.(*span)
	if !ok {
		return ctx
	}
	s.meet(ctx)
	if s.stamper {
		if o, ok := ctx.Value(outgoingKey{}).(*outgoing); ok {
			o.prepare(s)
		}
	}
	if s.other != nil {
		if hook, ok := s.other.Tracer().(ot.TracerContextWithSpanExtension); ok {
			return hook.ContextWithSpanHook(ctx, s.other)
		}
	}
	return ctx
}

// metadataOf identifies the metadata map in ctx.
func metadataOf(ctx context.Context) uintptr {
	return reflect.ValueOf(metadata.ValueFuncs(ctx)).Pointer()
}

// startChild starts a span under s; opts are the options other than the parent.
func (s *span) startChild(name string, opts []ot.StartSpanOption) *span {
	child := &s.startSpan(name, true, dns.Question{}).span
	if s.other != nil {
		opts = append([]ot.StartSpanOption{ot.ChildOf(s.other.Context())}, opts...)
		child.other = s.other.Tracer().StartSpan(name, opts...)
	}
	return child
}

// Finish implements ot.Span.
func (s *span) Finish() {
	s.finish()
	if s.other != nil {
		s.other.Finish()
	}
}

// FinishWithOptions implements ot.Span.
func (s *span) FinishWithOptions(o ot.FinishOptions) {
	s.finish()
	if s.other != nil {
		s.other.FinishWithOptions(o)
	}
}

// Context implements ot.Span.
func (s *span) Context() ot.SpanContext { return s }

// ForeachBaggageItem implements ot.SpanContext.
func (s *span) ForeachBaggageItem(handler func(k, v string) bool) {
	if s.other != nil {
		s.other.Context().ForeachBaggageItem(handler)
	}
}

// SetTag implements ot.Span.
func (s *span) SetTag(key string, value any) ot.Span {
	if key == peerAddress {
		if peer, ok := value.(string); ok {
			s.setPeer(peer)
		}
	}
	if s.other != nil {
		s.other.SetTag(key, value)
	}
	return s
}

// SetOperationName implements ot.Span. The name of a hop is its plugin's.
func (s *span) SetOperationName(name string) ot.Span {
	if s.other != nil {
		s.other.SetOperationName(name)
	}
	return s
}

// LogFields implements ot.Span.
func (s *span) LogFields(fields ...otlog.Field) {
	if s.other != nil {
		s.other.LogFields(fields...)
	}
}

// LogKV implements ot.Span.
func (s *span) LogKV(keyValues ...any) {
	if s.other != nil {
		s.other.LogKV(keyValues...)
	}
}

// SetBaggageItem implements ot.Span.
func (s *span) SetBaggageItem(key, value string) ot.Span {
	if s.other != nil {
		s.other.SetBaggageItem(key, value)
	}
	return s
}

// BaggageItem implements ot.Span.
func (s *span) BaggageItem(key string) string {
	if s.other == nil {
		return ""
	}
	return s.other.BaggageItem(key)
}

// Tracer implements ot.Span.
func (s *span) Tracer() ot.Tracer { return tracer{} }

// LogEvent implements ot.Span.
func (s *span) LogEvent(event string) { s.LogFields(otlog.Event(event)) }

// LogEventWithPayload implements ot.Span.
func (s *span) LogEventWithPayload(event string, payload any) {
	s.LogFields(otlog.Event(event), otlog.Object("payload", payload))
}

// Log implements ot.Span.
func (s *span) Log(data ot.LogData) {
	record := data.ToLogRecord()
	s.LogFields(record.Fields...)
}

// since returns the nanoseconds from t to now.
func since(t time.Time) int64 { return int64(time.Since(t)) }
