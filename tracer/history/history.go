// Package history keeps the latest finished traces for the local API: as JSON lines,
// compressed, bounded by age and by bytes. It has no clock of its own; callers pass the
// time.
//
// Half of the memory is a room reserved for lookups with a problem. In each room a client
// that has more than its share loses lines first, so that no client can evict those of
// others (package origin defines a client).
package history

import (
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/tracer/origin"
)

// Config bounds a [History].
type Config struct {
	Keep     time.Duration // how long a finished trace stays
	MaxBytes int           // what all of them may take in memory
}

// Lookup is a finished trace. History does not keep Line.
type Lookup struct {
	Line     []byte // the trace in JSON, without a newline
	Client   origin.Client
	Label    string // of the client, for people
	Notable  bool   // it failed, was slow, or has a finding
	Replaces bool   // a trace with the same time and trace id
}

// Stats is what a [History] holds and what it evicted.
type Stats struct {
	Traces       int    // held now
	Notable      int    // of them, those in which something is the matter
	Bytes        int    // of memory that they take now
	EvictedAge   uint64 // because they were old
	EvictedBytes uint64 // early, because memory was full
	EvictedShare uint64 // likewise, and because their client had more than its share
	Subscribers  int
	LostQueued   uint64 // not delivered to a subscriber that was too slow
}

// Rooms, by what is in them.
const (
	ordinary = iota
	notable
	rooms
)

// History is safe for use from many goroutines.
type History struct {
	config Config

	mu          sync.Mutex
	rooms       [rooms]*room
	seq         uint64
	now         time.Time
	stats       Stats
	subscribers map[*Subscription]struct{}
}

// New returns an empty History.
func New(c Config) *History {
	h := &History{config: c, subscribers: map[*Subscription]struct{}{}}
	for i := range h.rooms {
		h.rooms[i] = newRoom(c.MaxBytes / rooms)
	}
	return h
}

// Add keeps a trace that finished at now, hands it to the subscribers, and lets
// go of what is too old or does not fit any more. One that replaces another takes its
// place, though the memory of both is taken until they are evicted.
func (h *History) Add(now time.Time, l Lookup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) > 0 {
		shared := slices.Clone(l.Line)
		for s := range h.subscribers {
			if !s.offer(shared) {
				h.stats.LostQueued++
			}
		}
	}
	r := h.rooms[ordinary]
	if l.Notable {
		r = h.rooms[notable]
	}
	h.seq++
	r.add(&entry{line: l.Line, finished: now.UnixNano(), seq: h.seq, replaces: l.Replaces}, l.Client, l.Label)
	h.expire(now)
	oldest, thinned := r.fit()
	h.stats.EvictedBytes += uint64(oldest)
	h.stats.EvictedShare += uint64(thinned)
}

// Expire evicts what is too old at now. Add does so too; a node without
// lookups needs it to free its memory.
func (h *History) Expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
}

func (h *History) expire(now time.Time) {
	h.now = now
	for _, r := range h.rooms {
		h.stats.EvictedAge += uint64(r.expire(h.horizon()))
	}
}

// horizon is when the oldest trace may have finished.
func (h *History) horizon() time.Time { return h.now.Add(-h.config.Keep) }

// Query yields the lines of traces that finished at or after since, newest
// first, at most limit of them (0: all). A line is the caller's until the next.
func (h *History) Query(since time.Time, limit int) iter.Seq[[]byte] {
	h.mu.Lock()
	held := h.snapshot(since)
	h.mu.Unlock()
	return func(yield func([]byte) bool) {
		for e := range held.backwards(limit) {
			if !yield(e.line) {
				return
			}
		}
	}
}

// Stats returns the counts up to now.
func (h *History) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Subscribers = len(h.subscribers)
	for _, r := range h.rooms {
		s.Traces += r.traces
		s.Bytes += r.bytes
	}
	s.Notable = h.rooms[notable].traces
	return s
}
