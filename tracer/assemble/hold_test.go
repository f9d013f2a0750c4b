package assemble

import (
	"testing"
	"time"
)

// A lookup waits for its server's record, unless no server has written one for
// so long that none will.
func TestHoldForRecords(t *testing.T) {
	const took = time.Millisecond
	for _, tc := range []struct {
		name     string
		start    time.Duration
		recorded bool
		held     bool // beyond linger
	}{
		{"soon after the start", 21 * time.Second, false, true},
		{"no server writes records", noRecords + time.Minute, false, false},
		{"one does", noRecords + time.Minute, true, true},
	} {
		a := New(Config{Timeout: 5 * time.Second})
		first := fromClient("first.", 1000, 0, took)
		a.Add(first)
		if tc.recorded {
			a.Add(record(first, 0, took))
		}
		if first := a.Advance(epoch.Add(20 * time.Second)); len(first) != 1 {
			t.Fatalf("%s: %d traces of the first lookup", tc.name, len(first))
		}
		a.Add(fromClient("second.", 1001, tc.start, took))
		end := epoch.Add(tc.start + took)
		early := len(a.Advance(end.Add(linger + time.Millisecond)))
		late := len(a.Advance(end.Add(holdRecord + time.Millisecond)))
		if early+late != 1 || (late == 1) != tc.held {
			t.Errorf("%s: %d traces after %v, %d after %v", tc.name, early, linger, late, holdRecord)
		}
	}
}

// Where a thousand lookups were answered and no server has written a record, the next
// are not held for one; those that were are passed on too.
func TestManyWithoutRecordAreNotHeld(t *testing.T) {
	const took = time.Millisecond
	for _, tc := range []struct {
		lookups  int
		recorded bool
		held     bool
	}{{manyUnrecorded / 2, false, true}, {2 * manyUnrecorded, false, false}, {2 * manyUnrecorded, true, true}} {
		a := New(Config{Timeout: 5 * time.Second})
		for n := range tc.lookups {
			ex := fromClient("first.", uint16(n), 0, took)
			a.Add(ex)
			if tc.recorded && n == 0 {
				a.Add(record(ex, 0, took))
			}
		}
		early := len(a.Advance(epoch.Add(took + linger + time.Millisecond)))
		a.Add(fromClient("second.", 60_000, 10*time.Millisecond, took))
		early += len(a.Advance(epoch.Add(12*time.Millisecond + linger)))
		if late := tc.lookups + 1 - early; (late > tc.lookups/2) != tc.held {
			t.Errorf("%d lookups, recorded %v: %d are held for longer than %v", tc.lookups, tc.recorded, late, linger)
		}
		all := early + len(a.Advance(epoch.Add(12*time.Millisecond+holdRecord)))
		if all != tc.lookups+1 {
			t.Errorf("%d lookups, recorded %v: %d traces after %v", tc.lookups, tc.recorded, all, holdRecord)
		}
	}
}
