package capture

import (
	"encoding/binary"
	"fmt"
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
