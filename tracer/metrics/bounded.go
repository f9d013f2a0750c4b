package metrics

import "time"

// Bounds of what [bounded] keeps.
const (
	// unusedFor is after how long without events a series is no longer needed: rules and
	// dashboards look back an hour at most.
	unusedFor = time.Hour
	// sweepEvery bounds how often a full set is searched for unused entries.
	sweepEvery = time.Minute
)

// bounded holds what is counted under labels whose values come from traffic: at
// most limit of them, so that the number of series does not depend on who asks.
// What does not fit counts as other. Entries that were not used for an hour make
// room for new ones. Time is that of the traces: it has no clock.
type bounded[K comparable, V any] struct {
	limit   int
	entries map[K]*entry[V]
	open    func(K) V // makes the series of a key
	drop    func(K)   // removes them
	other   V
	swept   time.Time
}

type entry[V any] struct {
	value V
	used  time.Time
}

func newBounded[K comparable, V any](limit int, open func(K) V, drop func(K), other V) *bounded[K, V] {
	return &bounded[K, V]{limit: limit, entries: map[K]*entry[V]{}, open: open, drop: drop, other: other}
}

// get returns what counts for a key, at a time.
func (b *bounded[K, V]) get(k K, at time.Time) V {
	if e := b.entries[k]; e != nil {
		e.used = at
		return e.value
	}
	if len(b.entries) >= b.limit {
		b.sweep(at)
	}
	if len(b.entries) >= b.limit {
		return b.other
	}
	e := &entry[V]{value: b.open(k), used: at}
	b.entries[k] = e
	return e.value
}

// sweep removes what was not used for long.
func (b *bounded[K, V]) sweep(at time.Time) {
	// A clock that was stepped back must not stop it.
	if at.Sub(b.swept).Abs() < sweepEvery {
		return
	}
	b.swept = at
	for k, e := range b.entries {
		if at.Sub(e.used) > unusedFor {
			b.drop(k)
			delete(b.entries, k)
		}
	}
}
