// Package history keeps the traces that finished last, for the local API: as
// the JSON lines that go out again, bounded by age and by bytes. It has no clock
// of its own; callers pass the time.
package history

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// entryOverhead is what an entry costs in memory beside its line: a time, a
// slice, and its part of the list's spare room.
const entryOverhead = 96

// Config bounds a [History].
type Config struct {
	Keep     time.Duration // how long a finished trace stays
	MaxBytes int           // what all of them may take, encoded
}

// Stats is what a [History] holds and what it let go.
type Stats struct {
	Traces       int    // held now
	Bytes        int    // held now, encoded, with overhead
	EvictedAge   uint64 // let go because they were old
	EvictedBytes uint64 // let go early, because memory was full
	Subscribers  int
	LostQueued   uint64 // not delivered to a subscriber that was too slow
}

// History is safe for use from many goroutines.
type History struct {
	config Config

	mu          sync.Mutex
	entries     []entry // oldest first; those before head are gone
	head        int
	scratch     []byte
	stats       Stats
	subscribers map[*Subscription]struct{}
}

type entry struct {
	finished time.Time
	line     []byte // without newline, never changed
}

// New returns an empty History.
func New(c Config) *History {
	return &History{config: c, subscribers: map[*Subscription]struct{}{}}
}

// Add keeps a trace that finished at now, hands it to the subscribers, and lets
// go of what is too old or does not fit any more. It does not keep t itself.
func (h *History) Add(now time.Time, t *trace.Trace) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scratch = t.AppendJSON(h.scratch[:0])
	line := bytes.Clone(h.scratch)
	for s := range h.subscribers {
		if !s.offer(line) {
			h.stats.LostQueued++
		}
	}
	h.entries = append(h.entries, entry{finished: now, line: line})
	h.stats.Bytes += len(line) + entryOverhead
	h.expire(now)
	for h.stats.Bytes > h.config.MaxBytes {
		h.dropOldest()
		h.stats.EvictedBytes++
	}
}

// Expire lets go of what is too old at now. Add does so too; a node without
// lookups needs it to free its memory.
func (h *History) Expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
}

func (h *History) expire(now time.Time) {
	for h.head < len(h.entries) && now.Sub(h.entries[h.head].finished) > h.config.Keep {
		h.dropOldest()
		h.stats.EvictedAge++
	}
}

func (h *History) dropOldest() {
	h.stats.Bytes -= len(h.entries[h.head].line) + entryOverhead
	h.entries[h.head] = entry{}
	h.head++
	if h.head*2 > len(h.entries) {
		h.entries = slices.Delete(h.entries, 0, h.head)
		h.head = 0
		if cap(h.entries) > 4*len(h.entries)+1024 {
			h.entries = slices.Clip(slices.Clone(h.entries))
		}
	}
}

// Query returns the lines of traces that finished at or after since, newest
// first, at most limit of them (0: all). The caller must not change the lines.
func (h *History) Query(since time.Time, limit int) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.query(since, limit)
}

func (h *History) query(since time.Time, limit int) [][]byte {
	var lines [][]byte
	for i := len(h.entries) - 1; i >= h.head; i-- {
		if h.entries[i].finished.Before(since) || limit > 0 && len(lines) == limit {
			break
		}
		lines = append(lines, h.entries[i].line)
	}
	return lines
}

// Stats returns the counts up to now.
func (h *History) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Traces = len(h.entries) - h.head
	s.Subscribers = len(h.subscribers)
	return s
}
