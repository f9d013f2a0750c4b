package dnstrace

import (
	"context"
	"reflect"
	"slices"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

// Spans record what happens in their record, with the lock of the query, until the record is closed.

// newCall opens the span of a handler that is called with ctx, by one that does not see its own span.
func (s *span) newCall(ctx context.Context, h *hop) *span {
	q, began := s.q, int64(0)
	if s.parent != nil { // the first handler is called at 0
		began = q.now()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var c *span
	if q.calls < len(q.inline) {
		c = &q.inline[q.calls]
		q.calls++
	} else {
		c = new(span)
	}
	c.under(s, h.name, began)
	c.ctx, c.hidden = ctx, h.hides()
	other := ot.SpanFromContext(ctx)
	if ours, ok := other.(*span); ok {
		other = ours.Span
	}
	if other != nil && !c.hidden {
		c.Span = other
	}
	return c
}

// serve calls the handler of a hop.
func (s *span) serve(ctx context.Context, h *hop, w dns.ResponseWriter, r *dns.Msg) (rcode int, err error) {
	s.enter(ctx, h, w, r)
	if h.known().asks && h.plugin.stamps(r) {
		s.out = newOutgoing(h, w, r)
		w, r = &s.out.writer, &s.out.msg
	}
	returned := false
	defer func() { s.end(returned, rcode, err) }()
	rcode, err = h.next.ServeDNS(ctx, w, r)
	returned = true
	return rcode, err
}

// enter records that the handler of a hop is called. h, w and r are nil where CoreDNS started the span: then a hop
// calls it again, if there is one before the handler.
func (s *span) enter(ctx context.Context, h *hop, w dns.ResponseWriter, r *dns.Msg) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.entered && !s.isAttempt {
		s.begin(ctx, w)
	}
	if h != nil && s.isHop && !s.rec.closed {
		s.calledBy = h
		if len(r.Question) > 0 { // copied, because autopath changes the message for each name
			s.asks = r.Question[0]
		}
	}
}

// begin adds a hop, which is called with ctx. The caller holds the lock.
func (s *span) begin(ctx context.Context, w dns.ResponseWriter) {
	s.entered = true
	if s.ctx == nil { // otherwise ctx is s itself
		s.ctx = ctx
	}
	if !s.rec.isRefresh() && s.isBackground() {
		s.rec = s.q.newRefresh(s.began, s.parent.settings().verifies && waitsFor(w))
	}
	rec := s.rec
	if rec.closed || rec.isFull() {
		return
	}
	if n := len(rec.hops); n > 0 { // another goroutine may have read the clock later and locked earlier
		s.began = max(s.began, rec.hops[n-1].began)
	}
	above := s.parent.hop()
	s.nested = s.name == pluginName || above != nil && above.nested
	s.isHop, s.index = true, len(rec.hops)
	rec.hops = append(rec.hops, s)
}

// isBackground reports whether a hop is called by background work of a cache, which has its own metadata map.
func (s *span) isBackground() bool {
	above := s.parent
	if above.name != cachePlugin || !above.entered {
		return false
	}
	md := metadata.ValueFuncs(s.ctx)
	return md != nil && reflect.ValueOf(md).Pointer() != reflect.ValueOf(metadata.ValueFuncs(above.ctx)).Pointer()
}

// note records a tag of a span, or, without a key, a logged value.
func (s *span) note(key string, value any) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.rec.closed {
		return
	}
	switch value := value.(type) {
	case error:
		if s.isAttempt {
			s.failed, s.err = true, value
		}
	case bool:
		if key == string(otext.Error) && s.isAttempt {
			s.failed = s.failed || value
		}
	case string:
		switch {
		case key == string(otext.PeerAddress):
			s.attempts(value)
		case key == cacheStatusTag && s.isHop && s.name == cachePlugin && slices.Contains(cacheStatuses, value):
			s.says = value
		}
	}
}

// attempts records that s is an attempt to ask an upstream. The caller holds the lock.
func (s *span) attempts(address string) {
	rec := s.rec
	switch {
	case s.isAttempt && s.address == unknownPeer:
		s.address = address
		return
	case s.entered, s.isAttempt, rec.isFull():
		return
	}
	if n := len(rec.attempts); n > 0 {
		s.began = max(s.began, rec.attempts[n-1].began)
	}
	s.q.attempted++
	s.isAttempt, s.number, s.address = true, s.q.attempted, address
	rec.attempts = append(rec.attempts, s)
}

// end records that a handler returned, with what if that is known, or that an attempt ended. It closes a refresh
// when its first handler returns.
func (s *span) end(returned bool, rcode int, err error) {
	q := s.q
	q.mu.Lock()
	rec := s.rec
	if rec.closed || s.took != open || !s.isHop && !s.isAttempt {
		q.mu.Unlock()
		return
	}
	s.took = q.now() - s.began
	if s.isHop {
		s.returned, s.rcode, s.err = returned, rcode, err
		if h := s.calledBy; h != nil && s.name == cachePlugin && !h.silent.Load() && q.saysNothing(s) {
			h.silent.Store(true)
		}
	}
	if rec.isRefresh() && s == rec.hops[0] {
		rec.took = s.took
		rec.closed = q.closed // otherwise the query closes it
	}
	done := rec.closed
	q.mu.Unlock()
	if done {
		rec.complete()
	}
}

// traceparent returns the trace context to send with an attempt, if its address is allowed: the attempt's span is
// the parent of what the upstream does.
func (s *span) traceparent(allows func(address string) bool) (t trace.Traceparent, ok bool) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.isAttempt || s.rec.closed || !allows(s.address) {
		return t, false
	}
	s.stamped = true
	i := s.q.ident.computed()
	t.TraceID, t.SpanID = i.traceID, trace.NewSpanID(i.traceID, i.spanID, trace.RoleAttempt, s.number)
	if s.q.plugin.chooses(i) {
		t.Flags = trace.FlagSampled
	}
	return t, true
}
