package history

import (
	"context"
	"iter"
	"maps"
	"slices"
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
	blocks, since := h.snapshot(since)
	s := &Subscription{history: h, queue: make(chan []byte, queue)}
	h.subscribers[s] = struct{}{}
	return oldestFirst(blocks, since, limit), s
}

// oldestFirst yields the last limit lines of the blocks (0: all). What a later line
// replaces is left out, and is found first, from the newest block back.
func oldestFirst(blocks []*block, since time.Time, limit int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var later replacing
		known := make([]replacing, len(blocks)) // what the blocks after each replace
		first, lines := len(blocks), 0
		if limit == 0 && !slices.ContainsFunc(blocks, func(b *block) bool { return b.replaces }) {
			first = 0
		}
		for first > 0 && (limit == 0 || lines < limit) {
			first--
			known[first] = maps.Clone(later)
			lines += len(lastWords(blocks[first].entries(since), &later))
		}
		skip := 0
		if limit > 0 {
			skip = max(lines-limit, 0)
		}
		for i := first; i < len(blocks); i++ {
			entries := lastWords(blocks[i].entries(since), &known[i])
			n := min(skip, len(entries))
			skip -= n
			for _, e := range entries[n:] {
				if !yield(e.line) {
					return
				}
			}
		}
	}
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

// offer hands over a line without waiting. Only one goroutine does at a time.
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
