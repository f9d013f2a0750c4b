package exchange

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// IDs of lookups that are in a tenth of all, and that are not.
func idsByShare(t *testing.T, share capture.Share) (in, out uint16) {
	t.Helper()
	for id := uint16(1); in == 0 || out == 0; id++ {
		if share.Has(trace.TransportUDP, id, pod.Port()) {
			in = id
		} else {
			out = id
		}
	}
	return in, out
}

// A lookup that was under way when the share changed, and is in one of the shares
// only, is left out; others are what they are.
func TestReshare(t *testing.T) {
	const tenth = capture.WholeShare / 10
	in, out := idsByShare(t, tenth)
	smaller := func(at int64) capture.ShareChange {
		return capture.ShareChange{At: at, Before: capture.WholeShare, After: tenth}
	}
	larger := func(at int64) capture.ShareChange {
		return capture.ShareChange{At: at, Before: tenth, After: capture.WholeShare}
	}
	for name, tc := range map[string]struct {
		id      uint16
		age     time.Duration // of the query when the share changed
		answer  bool          // before that
		change  func(at int64) capture.ShareChange
		outcome string // empty: left out
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
			f.table.Reshare(tc.change(at))
			f.after(9 * time.Second)
			if cut := f.table.Stats().Discarded; tc.outcome == "" {
				if len(f.got) != 0 || cut != 1 || f.table.Stats().Open != 0 || f.table.keys.Len() != 0 {
					t.Fatalf("%d exchanges, %d cut", len(f.got), cut)
				}
				return
			}
			if ex := f.one(); ex.Outcome != tc.outcome || ex.LostEvents != tc.lost || f.table.Stats().Discarded != 0 {
				t.Errorf("%s, %d lost, want %s, %d", ex.Outcome, ex.LostEvents, tc.outcome, tc.lost)
			}
		})
	}
}

// Since when the packets of all lookups are reported: from the start, not while a part is,
// and again from when all are.
func TestWhole(t *testing.T) {
	f := newFeed(t)
	wall := func(at time.Duration) time.Time { return f.table.cfg.Wall(int64(at)) }
	if !f.table.Whole(wall(0)) {
		t.Error("not from the start")
	}
	const tenth = capture.WholeShare / 10
	f.table.Reshare(capture.ShareChange{At: int64(10 * time.Second), Before: capture.WholeShare, After: tenth})
	if f.table.Whole(wall(11 * time.Second)) {
		t.Error("while a tenth is")
	}
	f.table.Reshare(capture.ShareChange{At: int64(20 * time.Second), Before: tenth, After: capture.WholeShare})
	if f.table.Whole(wall(19*time.Second)) || !f.table.Whole(wall(21*time.Second)) {
		t.Error("not from when all are again")
	}
}
