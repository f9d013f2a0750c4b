// Package history keeps the traces that finished last, for the local API: as
// the JSON lines that go out again, compressed, bounded by age and by bytes. It
// has no clock of its own; callers pass the time.
package history

import (
	"iter"
	"slices"
	"sync"
	"time"
)

// Config bounds a [History].
type Config struct {
	Keep     time.Duration // how long a finished trace stays
	MaxBytes int           // what all of them may take in memory
}

// Stats is what a [History] holds and what it let go.
type Stats struct {
	Traces       int    // held now
	Bytes        int    // of memory that they take now
	EvictedAge   uint64 // let go because they were old
	EvictedBytes uint64 // let go early, because memory was full
	Subscribers  int
	LostQueued   uint64 // not delivered to a subscriber that was too slow
}

// History is safe for use from many goroutines.
type History struct {
	config Config

	mu          sync.Mutex
	blocks      []*block // oldest first
	open        block    // takes what comes
	scratch     []byte
	now         time.Time
	stats       Stats
	subscribers map[*Subscription]struct{}
}

// New returns an empty History.
func New(c Config) *History {
	return &History{config: c, subscribers: map[*Subscription]struct{}{}}
}

// Add keeps a trace that finished at now, hands it to the subscribers, and lets
// go of what is too old or does not fit any more. It does not keep line, which
// is the trace in JSON without a newline. One that replaces a trace with the same
// time and trace id takes its place, though the memory of both is taken until they
// are let go.
func (h *History) Add(now time.Time, line []byte, replaces bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) > 0 {
		shared := slices.Clone(line)
		for s := range h.subscribers {
			if !s.offer(shared) {
				h.stats.LostQueued++
			}
		}
	}
	h.stats.Traces++
	h.stats.Bytes += h.open.add(now, line, replaces)
	if len(h.open.data) >= blockBytes {
		h.seal()
	}
	h.expire(now)
	for h.stats.Bytes > h.config.MaxBytes {
		h.stats.EvictedBytes += uint64(h.dropOldest())
	}
}

// seal compresses the open block, and uses its memory for the next.
func (h *History) seal() {
	sealed := h.open.compress(&h.scratch)
	h.blocks = append(h.blocks, sealed)
	h.stats.Bytes += sealed.bytes() - h.open.bytes()
	h.open = block{data: h.open.data[:0]}
}

// Expire lets go of what is too old at now. Add does so too; a node without
// lookups needs it to free its memory.
func (h *History) Expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
}

// expire lets go of whole blocks; what is too old in a younger block is passed
// over when it is read.
func (h *History) expire(now time.Time) {
	h.now = now
	for h.stats.Traces > 0 && h.oldest().last.Before(h.horizon()) {
		h.stats.EvictedAge += uint64(h.dropOldest())
	}
}

// horizon is when the oldest trace may have finished.
func (h *History) horizon() time.Time { return h.now.Add(-h.config.Keep) }

func (h *History) oldest() *block {
	if len(h.blocks) > 0 {
		return h.blocks[0]
	}
	return &h.open
}

// dropOldest returns how many traces were let go.
func (h *History) dropOldest() int {
	oldest := h.oldest()
	n := oldest.traces
	h.stats.Bytes -= oldest.bytes()
	h.stats.Traces -= n
	if oldest == &h.open {
		h.open = block{data: h.open.data[:0]}
	} else {
		h.blocks = slices.Delete(h.blocks, 0, 1)
	}
	return n
}

// Query yields the lines of traces that finished at or after since, newest
// first, at most limit of them (0: all). A line is the caller's until the next.
func (h *History) Query(since time.Time, limit int) iter.Seq[[]byte] {
	h.mu.Lock()
	blocks, since := h.snapshot(since)
	h.mu.Unlock()
	slices.Reverse(blocks)
	return func(yield func([]byte) bool) {
		left := limit
		var later replacing
		for _, b := range blocks {
			entries := b.entries(since)
			for i := len(entries) - 1; i >= 0; i-- {
				if !later.passes(&entries[i]) {
					continue
				}
				if !yield(entries[i].line) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
		}
	}
}

// snapshot returns the blocks, oldest first, that may hold what finished at or
// after since, and from when on to read them. The blocks never change.
func (h *History) snapshot(since time.Time) ([]*block, time.Time) {
	if horizon := h.horizon(); since.Before(horizon) {
		since = horizon
	}
	var found []*block
	for _, b := range h.blocks {
		if !b.last.Before(since) {
			found = append(found, b)
		}
	}
	if h.open.traces > 0 && !h.open.last.Before(since) {
		frozen := h.open
		frozen.data = slices.Clone(frozen.data)
		found = append(found, &frozen)
	}
	return found, since
}

// Stats returns the counts up to now.
func (h *History) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Subscribers = len(h.subscribers)
	return s
}
