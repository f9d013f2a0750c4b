package diagnose

import (
	"maps"
	"slices"
	"time"
)

// A window counts events of two kinds over the last while, in slots of time so
// that it takes constant memory and old events fall out by themselves. It has no
// clock: the slots are those of the events' own time.
type window struct {
	slot  time.Duration
	slots [windowSlots]slot
}

const windowSlots = 12

type slot struct {
	number    int64 // of the time since 1970
	all, some int
}

func newWindow(length time.Duration) *window { return &window{slot: length / windowSlots} }

// add counts an event at a time, and whether it is one of some kind. What is
// older than the window by now is not counted.
func (w *window) add(at time.Time, isSome bool) {
	number := at.UnixNano() / int64(w.slot)
	if number < 0 {
		return // a record from before 1970: its clock is not set
	}
	s := &w.slots[number%windowSlots]
	switch {
	case s.number > number:
		return
	case s.number < number:
		*s = slot{number: number}
	}
	s.all++
	if isSome {
		s.some++
	}
}

// sum returns the events of the window that ends at a time.
func (w *window) sum(at time.Time) (all, some int) {
	last := at.UnixNano() / int64(w.slot)
	for i := range w.slots {
		if s := &w.slots[i]; s.number > last-windowSlots && s.number <= last {
			all += s.all
			some += s.some
		}
	}
	return all, some
}

// latest is the number of the newest slot, to find what has not been used for
// longest.
func (w *window) latest() int64 {
	var n int64
	for i := range w.slots {
		n = max(n, w.slots[i].number)
	}
	return n
}

// forgetStalest removes at least a quarter of the entries, those that were used
// longest ago: all that are as old as each other, so that it does not depend on
// the order of the map.
func forgetStalest[K comparable, V any](entries map[K]V, latest func(V) int64) {
	ages := make([]int64, 0, len(entries))
	for _, v := range entries {
		ages = append(ages, latest(v))
	}
	slices.Sort(ages)
	oldest := ages[len(ages)/4]
	maps.DeleteFunc(entries, func(_ K, v V) bool { return latest(v) <= oldest })
}
