package history

import (
	"context"
	"iter"
	"sync/atomic"
	"time"
)

// maxQueued bounds the bytes that wait for one slow reader: some thousand traces. One
// that is larger still waits alone.
const maxQueued = 4 << 20

// Subscription delivers the traces that finish from now on.
type Subscription struct {
	history *History
	queue   chan []byte
	queued  atomic.Int64 // bytes in queue
	lost    atomic.Uint64
}

// Follow yields the lines that [History.Query] would, but oldest first, and
// returns a subscription to all that finish after them: none in both, none in
// neither. queue is how many traces may wait for a slow reader, of maxQueued bytes
// at most; what comes beyond is lost to it, and counted. The caller must close the subscription.
func (h *History) Follow(since time.Time, limit, queue int) (iter.Seq[[]byte], *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.snapshot(since)
	s := &Subscription{history: h, queue: make(chan []byte, queue)}
	h.subscribers[s] = struct{}{}
	return held.oldestFirst(limit), s
}

// Next waits for the next trace. lost is how many were not delivered since the
// call before. It fails only with the context's error.
func (s *Subscription) Next(ctx context.Context) (line []byte, lost uint64, err error) {
	select {
	case line = <-s.queue:
		s.queued.Add(-int64(len(line)))
		return line, s.lost.Swap(0), nil
	case <-ctx.Done():
		return nil, s.lost.Swap(0), ctx.Err()
	}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	delete(s.history.subscribers, s)
}

// offer hands over a line without blocking. Calls must not overlap.
func (s *Subscription) offer(line []byte) bool {
	size := int64(len(line))
	if before := s.queued.Add(size) - size; before == 0 || before+size <= maxQueued {
		select {
		case s.queue <- line:
			return true
		default:
		}
	}
	s.queued.Add(-size)
	s.lost.Add(1)
	return false
}
