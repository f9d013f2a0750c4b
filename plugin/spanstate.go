package dnstrace

import (
	"context"
	"reflect"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// What spans note in the record that they are part of.

// record returns the record that s is part of, or nil if nobody may change it any more. It is
// called with the lock.
func (s *span) record() *record {
	if s.refresh != nil {
		return s.refresh.rec
	}
	return s.q.rec
}

// enter notes that the handler of a hop is called with ctx and r. h and r are nil where CoreDNS
// started the span: then a hop of ours calls it again, if there is one before the handler.
func (s *span) enter(ctx context.Context, h *hop, r *dns.Msg) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.attempt != none {
		return
	}
	if s.ctx == nil {
		s.begin(ctx)
	}
	if rec := s.record(); rec != nil && s.hop != none && h != nil {
		data := &rec.hops[s.hop]
		data.by = h
		if len(r.Question) > 0 { // a copy: autopath asks for one name after the other with the same message
			data.asks = r.Question[0]
		}
	}
}

// begin adds a hop, which is called with ctx. It is called with the lock.
func (s *span) begin(ctx context.Context) {
	s.ctx = ctx
	if s.refresh == nil && s.isBackground() {
		s.refresh = s.q.newRefresh(s.hop, s.began)
		s.hop = none
	}
	rec := s.record()
	if rec == nil || rec.isFull() {
		s.hop = none
		return
	}
	if n := len(rec.hops); n > 0 { // another goroutine may have looked at the clock after, and locked before
		s.began = max(s.began, rec.hops[n-1].began)
	}
	rec.hops = append(rec.hops, hopData{name: s.name, parent: s.hop, began: s.began, end: open})
	s.hop = len(rec.hops) - 1
}

// isBackground reports whether a hop is called by work in the background: a cache gives that a
// metadata map of its own.
func (s *span) isBackground() bool {
	above := s.parent
	if above.name != cachePlugin || above.ctx == nil {
		return false
	}
	md := metadata.ValueFuncs(s.ctx)
	return md != nil && reflect.ValueOf(md).Pointer() != reflect.ValueOf(metadata.ValueFuncs(above.ctx)).Pointer()
}

// attempts notes that s is an attempt to ask an upstream.
func (s *span) attempts(address string) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	rec := s.record()
	if rec != nil && s.attempt != none && rec.attempts[s.attempt].address == unknownPeer {
		rec.attempts[s.attempt].address = address
		return
	}
	if rec == nil || s.ctx != nil || s.attempt != none || rec.isFull() {
		return
	}
	if n := len(rec.attempts); n > 0 {
		s.began = max(s.began, rec.attempts[n-1].began)
	}
	s.q.attempts++
	rec.attempts = append(rec.attempts, attemptData{number: s.q.attempts, address: address, hop: s.hop, began: s.began, end: open})
	s.attempt = len(rec.attempts) - 1
}

// cached notes what a cache says that it did for the answer.
func (s *span) cached(status string) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if rec := s.record(); rec != nil && s.hop != none && rec.hops[s.hop].name == cachePlugin {
		rec.hops[s.hop].told = status
	}
}

// failed notes that an attempt failed; err is nil where it does not say how.
func (s *span) failed(err error) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if rec := s.record(); rec != nil && s.attempt != none {
		a := &rec.attempts[s.attempt]
		a.failed = true
		if err != nil {
			a.err = err
		}
	}
}

// result is what a handler returned, if it is known.
type result struct {
	known bool
	rcode int32
	err   error
}

// leave notes that a handler returned, and closes a refresh whose first handler that is.
func (s *span) leave(r result) {
	q := s.q
	q.mu.Lock()
	rec := s.record()
	if rec == nil || s.ctx == nil || s.hop == none || rec.hops[s.hop].end != open {
		q.mu.Unlock()
		return
	}
	now := q.now()
	rec.hops[s.hop].end, rec.hops[s.hop].result = now, r
	if h := s.calledBy; h != nil && s.name == cachePlugin && !h.silent.Load() && rec.saysNothing(s.hop) {
		h.silent.Store(true)
	}
	done := false
	if s.refresh != nil && s.hop == 0 {
		s.refresh.doneAt = now
		if done = q.rec == nil; done {
			s.refresh.take(q.closed)
		}
	}
	q.mu.Unlock()
	if done {
		rec.handOver()
	}
}

// finish ends an attempt, or a hop that nothing of ours called.
func (s *span) finish() {
	s.leave(result{})
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if rec := s.record(); rec != nil && s.attempt != none {
		if a := &rec.attempts[s.attempt]; a.end == open {
			a.end = s.q.now()
		}
	}
}

// traceparent returns the trace context that an attempt goes out with if its address is allowed:
// what the upstream does for it comes below it.
func (s *span) traceparent(allows func(address string) bool) (t trace.Traceparent, ok bool) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	rec := s.record()
	if rec == nil || s.attempt == none {
		return t, false
	}
	a := &rec.attempts[s.attempt]
	if !allows(a.address) {
		return t, false
	}
	i := s.q.ident
	i.compute()
	t.TraceID, t.SpanID = i.traceID, trace.NewSpanID(i.traceID, i.spanID, trace.RoleAttempt, a.number)
	if s.q.plugin.policy.chosen(i) {
		t.Flags = trace.FlagSampled
	}
	a.stamped = true
	return t, true
}
