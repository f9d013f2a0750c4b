package dnstrace

import (
	"context"
	"reflect"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// What spans note in the record that they are part of, with the lock of the query, as long as the record is not
// closed.

// newCall opens the span of a handler that is called with ctx, by one that does not see it.
func (s *span) newCall(ctx context.Context, h *hop) *span {
	q, began := s.q, int64(0)
	if s.parent != nil { // else it is the first one, which the query begins with
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

// enter notes that the handler of a hop is called. h, w and r are nil where CoreDNS started the span: then a
// hop of ours calls it again, if there is one before the handler.
func (s *span) enter(ctx context.Context, h *hop, w dns.ResponseWriter, r *dns.Msg) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.entered && !s.isAttempt {
		s.begin(ctx, w)
	}
	if h != nil && s.isHop && !s.rec.closed {
		s.calledBy = h
		if len(r.Question) > 0 { // a copy: autopath asks for one name after the other with the same message
			s.asks = r.Question[0]
		}
	}
}

// begin adds a hop, which is called with ctx. It is called with the lock.
func (s *span) begin(ctx context.Context, w dns.ResponseWriter) {
	s.entered = true
	if s.ctx == nil { // else it is s
		s.ctx = ctx
	}
	if !s.rec.isRefresh() && s.isBackground() {
		s.rec = s.q.newRefresh(s.began, s.parent.settings().verifies && waitsFor(w))
	}
	rec := s.rec
	if rec.closed || rec.isFull() {
		return
	}
	if n := len(rec.hops); n > 0 { // another goroutine may have looked at the clock after, and locked before
		s.began = max(s.began, rec.hops[n-1].began)
	}
	above := s.parent.hop()
	s.nested = s.name == pluginName || above != nil && above.nested
	s.isHop, s.index = true, len(rec.hops)
	rec.hops = append(rec.hops, s)
}

// isBackground reports whether a hop is called by work in the background: a cache gives that a metadata map of
// its own.
func (s *span) isBackground() bool {
	above := s.parent
	if above.name != cachePlugin || !above.entered {
		return false
	}
	md := metadata.ValueFuncs(s.ctx)
	return md != nil && reflect.ValueOf(md).Pointer() != reflect.ValueOf(metadata.ValueFuncs(above.ctx)).Pointer()
}

// attempts notes that s is an attempt to ask an upstream.
func (s *span) attempts(address string) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	rec := s.rec
	if s.isAttempt && !rec.closed && s.address == unknownPeer {
		s.address = address
		return
	}
	if rec.closed || s.entered || s.isAttempt || rec.isFull() {
		return
	}
	if n := len(rec.attempts); n > 0 {
		s.began = max(s.began, rec.attempts[n-1].began)
	}
	s.q.attempted++
	s.isAttempt, s.number, s.address = true, s.q.attempted, address
	rec.attempts = append(rec.attempts, s)
}

// cached notes what a cache says that it did for the answer.
func (s *span) cached(status string) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.isHop && s.name == cachePlugin && !s.rec.closed {
		s.says = status
	}
}

// fails notes that an attempt failed; err is nil where it does not say how.
func (s *span) fails(err error) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.isAttempt && !s.rec.closed {
		s.failed = true
		if err != nil {
			s.err = err
		}
	}
}

// end notes that a handler returned, with what if that is known, or that an attempt ended, and closes a refresh
// whose first handler that is.
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
		rec.closed = q.closed // else the query closes it
	}
	done := rec.closed
	q.mu.Unlock()
	if done {
		rec.handOver()
	}
}

// traceparent returns the trace context that an attempt goes out with if its address is allowed: what the
// upstream does for it comes below it.
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
