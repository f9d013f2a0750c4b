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
		held     bool // beyond settle
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
		early := len(a.Advance(end.Add(settle + time.Millisecond)))
		late := len(a.Advance(end.Add(holdRecord + time.Millisecond)))
		if early+late != 1 || (late == 1) != tc.held {
			t.Errorf("%s: %d traces after %v, %d after %v", tc.name, early, settle, late, holdRecord)
		}
	}
}
