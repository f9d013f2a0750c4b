package history

import (
	"iter"
	"slices"
	"time"
)

// snapshot is what was held at one moment.
type snapshot struct {
	rooms [rooms][]*block // oldest first
	since int64           // Unix time in ns: what finished before is passed over
}

// snapshot returns what finished at or after since. The caller holds the lock.
func (h *History) snapshot(since time.Time) snapshot {
	if horizon := h.horizon(); since.Before(horizon) {
		since = horizon
	}
	s := snapshot{since: since.UnixNano()}
	for i, r := range h.rooms {
		s.rooms[i] = r.since(since)
	}
	return s
}

// cursor goes over the lines of a room, one block at a time.
type cursor struct {
	blocks  []*block // still to be read
	entries []entry  // of the block that is read
	since   int64
	back    bool // from the newest to the oldest
}

// peek returns the next line, nil at the end.
func (c *cursor) peek() *entry {
	for len(c.entries) == 0 {
		if len(c.blocks) == 0 {
			return nil
		}
		at, rest := 0, c.blocks[1:]
		if c.back {
			at = len(c.blocks) - 1
			rest = c.blocks[:at]
		}
		c.entries, c.blocks = c.blocks[at].entries(c.since), rest
	}
	if c.back {
		return &c.entries[len(c.entries)-1]
	}
	return &c.entries[0]
}

func (c *cursor) pass() {
	if c.back {
		c.entries = c.entries[:len(c.entries)-1]
	} else {
		c.entries = c.entries[1:]
	}
}

// entries yields the lines of all rooms in the order in which they came, or back from
// the newest.
func (s snapshot) entries(back bool) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		var cursors [rooms]cursor
		for i := range cursors {
			cursors[i] = cursor{blocks: s.rooms[i], since: s.since, back: back}
		}
		for {
			var next *cursor
			var first *entry
			for i := range cursors {
				if e := cursors[i].peek(); e != nil && (first == nil || (e.seq < first.seq) != back) {
					next, first = &cursors[i], e
				}
			}
			if first == nil || !yield(first) {
				return
			}
			next.pass()
		}
	}
}

// backwards yields the lines back from the newest, at most limit of them (0: all),
// without those that a later one replaces.
func (s snapshot) backwards(limit int) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		var later replacing
		left := limit
		for e := range s.entries(true) {
			if !later.passes(e) {
				continue
			}
			if !yield(e) {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	}
}

// oldestFirst yields what backwards does, the other way round. What a later line
// replaces is found first, from the newest back.
func (s snapshot) oldestFirst(limit int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var shown []uint64
		for e := range s.backwards(limit) {
			shown = append(shown, e.seq)
		}
		slices.Reverse(shown)
		for e := range s.entries(false) {
			if len(shown) == 0 {
				return
			}
			if e.seq != shown[0] {
				continue
			}
			shown = shown[1:]
			if !yield(e.line) {
				return
			}
		}
	}
}
