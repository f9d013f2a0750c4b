package capture

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// numbered is an event of a time, as long as its number says.
func numbered(time int64) []byte {
	raw := make([]byte, eventSize+int(time))
	binary.NativeEndian.PutUint64(raw, uint64(time))
	raw[len(raw)-1] = byte(time)
	return raw
}

func TestPendingInOrder(t *testing.T) {
	var p pending
	for round, tc := range []struct {
		come []int64
		upTo int64
		want []int64
	}{
		{[]int64{3, 5, 1, 2, 6}, 4, []int64{1, 2, 3}},
		{nil, 4, nil},
		{[]int64{4, 8}, 5, []int64{4, 5}}, // what came late is not lost
		{[]int64{7, 9}, 9, []int64{6, 7, 8, 9}},
		{[]int64{10}, 10, []int64{10}},
	} {
		for _, time := range tc.come {
			// Read into the room that there is, as from a ring.
			p.add(append(p.room(), numbered(time)...))
		}
		var got []int64
		err := p.take(tc.upTo, func(raw []byte) error {
			time := eventTime(raw)
			if want := numbered(time); !slices.Equal(raw, want) {
				return fmt.Errorf("the event of %d has changed", time)
			}
			got = append(got, time)
			return nil
		})
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("round %d: got %v, %v, want %v", round, got, err, tc.want)
		}
	}
	if len(p.data) != 0 || len(p.events) != 0 {
		t.Errorf("%d bytes and %d events are left", len(p.data), len(p.events))
	}
}

// Events of one time stay as they came, however they are mixed.
func TestPendingSort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, within := range []int{1, 3, 100, 10_000} {
		var p pending
		for i := range 500 {
			p.events = append(p.events, event{time: int64(i/50*20 + random.IntN(within)), from: i})
		}
		want := slices.Clone(p.events)
		slices.SortStableFunc(want, func(a, b event) int { return cmp.Compare(a.time, b.time) })
		if p.sort(); !slices.Equal(p.events, want) {
			t.Errorf("within %d: out of order", within)
		}
	}
}

// The memory of usual rounds is reused; that of a burst is released, at once or
// when it was not needed for long. What stays in between is not lost.
func TestPendingAfterABurst(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bytes int
		kept  bool
	}{{"large", maxKept / 4, true}, {"huge", 2 * maxKept, false}} {
		var p pending
		now := int64(1)
		round := func(events int) {
			for range events {
				now++
				p.add(append(p.room(), numbered(1)...))
				binary.NativeEndian.PutUint64(p.data[p.events[len(p.events)-1].from:], uint64(now))
				p.events[len(p.events)-1].time = now
			}
			// The last one is to stay for the next round.
			first := int64(0)
			err := p.take(now-1, func(raw []byte) error {
				if first == 0 {
					first = eventTime(raw)
				}
				return nil
			})
			if err != nil || len(p.events) != 1 || eventTime(p.data) != now || events < 2 && first != now-1 {
				t.Fatalf("%s: %v, %d events are left, of %d at %d", tc.name, err, len(p.events), eventTime(p.data), now)
			}
		}
		round(tc.bytes / len(numbered(1)))
		if kept := cap(p.data) >= tc.bytes; kept != tc.kept {
			t.Errorf("%s: %d bytes are kept after the round", tc.name, cap(p.data))
		}
		for range 2 * trimRounds {
			round(1)
		}
		if cap(p.data) > 4*smallRound {
			t.Errorf("%s: %d bytes are kept for ever", tc.name, cap(p.data))
		}
		p.rounds = 0 // what follows is within one trim
		before := cap(p.data)
		for range trimRounds / 2 {
			round(2)
		}
		if cap(p.data) != before {
			t.Errorf("%s: memory for %d bytes became that for %d", tc.name, before, cap(p.data))
		}
	}
}
