package capture

import (
	"math"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Share is which lookups are reported: those with a [trace.SamplingHash] up to it, every
// packet of each. So what is reported under load is part of what is reported without,
// and part of every sample that is larger.
type Share uint32

// WholeShare is all of them (bpf/sampling.h).
const WholeShare Share = math.MaxUint32

// shareOf returns the share that is a sample of the lookups; nil: all.
func shareOf(rate *float64) Share {
	if rate == nil {
		return WholeShare
	}
	return Share(max(trace.SampleThreshold(*rate), 1) - 1)
}

// Has tells whether the packets of a lookup are reported. clientPort is the port that
// the client used: the programs decide alike, wherever connection tracking tells it to
// them.
func (s Share) Has(protocol uint8, id, clientPort uint16) bool {
	return Share(trace.SamplingHash(protocol, id, clientPort)) <= s
}

// of returns how much of another share it is, from 0 to 1.
func (s Share) of(whole Share) float64 { return (float64(s) + 1) / (float64(whole) + 1) }

// times returns a part of the share; not less than none.
func (s Share) times(part float64) Share {
	return Share(max(math.Ceil((float64(s)+1)*part), 1) - 1)
}

// ShareChange says that another share of the lookups is reported from some time on. A
// lookup that was under way then, and is in one of the two only, was seen in part.
type ShareChange struct {
	At            int64 // ns of the monotonic clock
	Before, After Share
}

// Limits of when the share changes. A ring that is three quarters full at a poll may
// be full before the next: then half of it is aimed for. Twice as much is tried where
// it has been at most a quarter full for some time, so that the share does not swing.
const (
	fullRing   = 0.75
	wantedRing = 0.5
	emptyRing  = 0.25
	calmFor    = int64(500 * time.Millisecond)
	leastPart  = 1.0 / 256 // of the share that is reported without load
)

// shedder decides how many lookups are reported, by how full the rings are when they
// are read: that is the one measure of what user space can follow, whatever keeps
// it.
type shedder struct {
	whole Share // what is reported without load
	share Share
	full  float64 // of any ring since the last decision; above 1: events were lost
	calm  int64   // since when the rings were at most as full as emptyRing
	part  int64   // when only a part of all lookups was reported last; 0: never
}

// complete tells whether all that waits in a socket at a time was reported when it came.
func (s *shedder) complete(at int64) bool {
	return s.share == WholeShare && (s.part == 0 || at-s.part > unreadFor)
}

// saw notes how full a ring was at a poll: how much of it was in use, and how many
// events it took and lost since the last. What was lost found it full, or a perf buffer
// (paged.go).
func (s *shedder) saw(used float64, taken, lost uint64) {
	if lost > 0 {
		used = max(used, 1) * (1 + float64(lost)/float64(max(taken, 1)))
	}
	s.full = max(s.full, used)
}

// decide returns the share to report from now on; false if it stays.
func (s *shedder) decide(now int64) (ShareChange, bool) {
	full := s.full
	s.full = 0
	if s.share != WholeShare {
		s.part = now
	}
	change := ShareChange{At: now, Before: s.share, After: s.share}
	switch {
	case full > fullRing:
		change.After = max(s.whole.times(leastPart), s.share.times(wantedRing/full))
	case full > emptyRing:
	case now-s.calm >= calmFor:
		change.After = s.whole.times(min(1, 2*s.share.of(s.whole)))
	default:
		return ShareChange{}, false
	}
	s.share, s.calm = change.After, now
	return change, change.After != change.Before
}
