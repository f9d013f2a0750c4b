package dnstrace

import (
	"context"

	"github.com/miekg/dns"
)

// What happens to a span, under the lock of its query.

// startSpan adds a span under s, with the question it was called with, if that is known;
// exposed says whether anybody but the ordinary plugins will see it. A child of a cache waits for place: only its context tells whether it
// works for the answer or in the background.
func (s *span) startSpan(name string, exposed bool, asks dns.Question) *hopSpan {
	if f := s.front; f != nil && !f.shared {
		f.shared = exposed
		return s.addSpan(s.rec, name, asks)
	}
	q, ok := s.lock()
	if !ok {
		late := new(hopSpan)
		late.rec, late.use, late.parent, late.name, late.end, late.state = s.rec, s.use, s, name, open, stateIgnored
		return late
	}
	defer q.mu.Unlock()
	return s.addSpan(q, name, asks)
}

// addSpan is startSpan for a query that is not over. It is called with the lock, unless
// the front is not shared.
func (s *span) addSpan(q *recording, name string, asks dns.Question) *hopSpan {
	child, rec := q.newSpan(), s.rec
	child.asks = asks
	child.front, child.rec, child.use, child.parent, child.name, child.end, child.state = s.front, rec, s.use, s, name, open, stateIgnored
	child.stamper, child.refresh = s.stamper, q.plugin.chain.refreshes
	child.began = rec.now()
	switch {
	case child.refresh && s.name == cachePlugin && s.state == stateRecorded:
		child.state = stateUndecided
	case !rec.closed && s.state == stateRecorded && len(rec.spans) < maxSpans:
		child.state = stateRecorded
		rec.spans = append(rec.spans, &child.span)
	}
	return child
}

// newSpan returns the memory of a span. It is called with the lock.
func (rec *recording) newSpan() *hopSpan {
	if s := &rec.front.second; s.rec == nil {
		return s
	}
	return new(hopSpan)
}

// lock locks the query that s belongs to, unless that is over and its recording
// is another one's now.
func (s *span) lock() (q *recording, ok bool) {
	q = s.rec.query
	q.mu.Lock()
	if s.use != q.use {
		q.mu.Unlock()
		return nil, false
	}
	return q, true
}

// meet tells a span its context: that decides what the child of a cache belongs
// to. The cache gives work in the background a metadata map of its own.
func (s *span) meet(ctx context.Context) {
	if !s.refresh || s.name != cachePlugin && s.state != stateUndecided {
		return
	}
	md := metadataOf(ctx)
	q, ok := s.lock()
	if !ok {
		return
	}
	defer q.mu.Unlock()
	s.md = md
	if s.state != stateUndecided {
		return
	}
	rec := s.rec
	switch {
	case rec == q && (q.closed || md != s.parent.md):
		s.rec = q.newRefresh(ctx, s)
	case rec.closed || len(rec.spans) >= maxSpans:
		s.state = stateIgnored
		return
	default:
		rec.spans = append(rec.spans, s)
	}
	s.state = stateRecorded
}

// newRefresh starts the recording of work in the background, which s is the
// first span of. It is called with the lock.
func (rec *recording) newRefresh(ctx context.Context, s *span) *recording {
	refresh := &recording{query: rec}
	refresh.plugin, refresh.ident, refresh.ctx = rec.plugin, rec.ident, ctx
	refresh.startedAt, s.began = s.began, 0
	refresh.spans = append(refresh.list[:0], s)
	if !rec.closed {
		rec.background = append(rec.background, refresh)
	}
	return refresh
}

// setQuestion notes the message that a hop was called with, where CoreDNS started
// its span.
func (s *span) setQuestion(r *dns.Msg) {
	q, ok := s.lock()
	if !ok {
		return
	}
	if !s.rec.closed {
		s.asks = question(r)
	}
	q.mu.Unlock()
}

func (s *span) setPeer(peer string) {
	q, ok := s.lock()
	if !ok {
		return
	}
	if !s.rec.closed {
		s.peer = peer
		q.attempts++
		s.number = q.attempts
		s.desperate = q.plugin.chain.desperate()
	}
	q.mu.Unlock()
}

// finish ends a span, and with the first span of a refresh the refresh.
func (s *span) finish() {
	if f := s.front; f != nil && !f.shared {
		if s.end == open && s.rec.mayBeWanted() {
			s.end = s.rec.now()
		}
		return
	}
	q, ok := s.lock()
	if !ok {
		return
	}
	rec := s.rec
	if rec.closed || s.end != open {
		q.mu.Unlock()
		return
	}
	s.end = rec.now()
	refreshed := rec != q && rec.spans[0] == s
	if refreshed {
		rec.closed = true
		rec.doneAt = rec.startedAt + s.end
		rec.canceled = rec.ctx.Err() != nil
	}
	publish := refreshed && q.closed
	q.mu.Unlock()
	if publish {
		rec.publish()
	}
}

// setError notes how a nested lookup ended.
func (s *span) setError(err error) {
	q, ok := s.lock()
	if !ok {
		return
	}
	defer q.mu.Unlock()
	if s.rec.closed || s.state != stateRecorded {
		return
	}
	if s.nested == nil {
		s.nested = &scope{answeredAt: notAnswered}
	}
	s.nested.err = err
}

// setAnswered notes when a nested lookup was answered.
func (s *span) setAnswered() {
	q, ok := s.lock()
	if !ok {
		return
	}
	defer q.mu.Unlock()
	if !s.rec.closed && s.state == stateRecorded && s.nested == nil {
		s.nested = &scope{answeredAt: s.rec.now()}
	}
}
