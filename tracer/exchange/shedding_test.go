package exchange

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// idsByThreshold returns the ID of a lookup that is selected, and of one that is not.
func idsByThreshold(t *testing.T, threshold capture.Threshold) (in, out uint16) {
	t.Helper()
	for id := uint16(1); in == 0 || out == 0; id++ {
		if threshold.Selects(trace.TransportUDP, id, pod.Port()) {
			in = id
		} else {
			out = id
		}
	}
	return in, out
}

// A lookup that was under way when the threshold changed, and that only one of the two
// selects, is discarded; others stay as they are.
func TestThresholdChange(t *testing.T) {
	const tenth = capture.AllLookups / 10
	in, out := idsByThreshold(t, tenth)
	smaller := func(at int64) capture.ThresholdChange {
		return capture.ThresholdChange{At: at, Before: capture.AllLookups, After: tenth}
	}
	larger := func(at int64) capture.ThresholdChange {
		return capture.ThresholdChange{At: at, Before: tenth, After: capture.AllLookups}
	}
	for name, tc := range map[string]struct {
		id      uint16
		age     time.Duration // of the query when the threshold changed
		answer  bool          // before that
		change  func(at int64) capture.ThresholdChange
		outcome string // empty: discarded
		lost    uint64
	}{
		"under way, and reported on":         {in, time.Millisecond, false, smaller, trace.OutcomeUnanswered, 0},
		"under way, and not reported on":     {out, time.Millisecond, false, smaller, "", 0},
		"answered before":                    {out, time.Millisecond, true, smaller, trace.OutcomeAnswered, 0},
		"waiting for longer than others":     {out, time.Second, false, smaller, trace.OutcomeUnanswered, 1},
		"seen from the middle on":            {out, -time.Millisecond, true, larger, "", 0},
		"begun when all were reported":       {out, -20 * time.Millisecond, true, larger, trace.OutcomeAnswered, 0},
		"reported before, and all are after": {in, time.Millisecond, true, larger, trace.OutcomeAnswered, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.now = int64(time.Minute)
			at := f.now + int64(tc.age)
			f.packet(capture.TX, podNS, 2, pod, server, query(t, "a.example.", tc.id))
			if tc.answer {
				f.packet(capture.RX, podNS, 2, server, pod, response(t, "a.example.", tc.id, dns.RcodeSuccess))
			}
			f.table.ThresholdChanged(tc.change(at))
			f.after(9 * time.Second)
			if discarded := f.table.Stats().Discarded; tc.outcome == "" {
				if len(f.got) != 0 || discarded != 1 || f.table.Stats().Open != 0 || f.table.keys.Len() != 0 {
					t.Fatalf("%d exchanges, %d discarded", len(f.got), discarded)
				}
				return
			}
			if ex := f.one(); ex.Outcome != tc.outcome || ex.LostEvents != tc.lost || f.table.Stats().Discarded != 0 {
				t.Errorf("%s, %d lost, want %s, %d", ex.Outcome, ex.LostEvents, tc.outcome, tc.lost)
			}
		})
	}
}

// The packets of all lookups are reported from the start, not while load is shed, and again
// after it.
func TestAllReported(t *testing.T) {
	f := newFeed(t)
	wall := func(at time.Duration) time.Time { return f.table.cfg.Wall(int64(at)) }
	if !f.table.AllReported(wall(0)) {
		t.Error("not from the start")
	}
	const tenth = capture.AllLookups / 10
	f.table.ThresholdChanged(capture.ThresholdChange{At: int64(10 * time.Second), Before: capture.AllLookups, After: tenth})
	if f.table.AllReported(wall(11 * time.Second)) {
		t.Error("while a tenth is")
	}
	f.table.ThresholdChanged(capture.ThresholdChange{At: int64(20 * time.Second), Before: tenth, After: capture.AllLookups})
	if f.table.AllReported(wall(19*time.Second)) || !f.table.AllReported(wall(21*time.Second)) {
		t.Error("not from when all are again")
	}
}
