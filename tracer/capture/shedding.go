package capture

import (
	"math"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Threshold selects the lookups that are reported: those with a [trace.SamplingHash] up to
// it, every packet of each. So what is reported under load is a subset of what is reported
// without, and of every larger sample.
type Threshold uint32

// AllLookups selects all of them (bpf/sampling.h).
const AllLookups Threshold = math.MaxUint32

// thresholdOf returns the threshold of a sampling rate; nil: all.
func thresholdOf(rate *float64) Threshold {
	if rate == nil {
		return AllLookups
	}
	return Threshold(max(trace.SampleThreshold(*rate), 1) - 1)
}

// Selects tells whether the packets of a lookup are reported. clientPort is the port that
// the client used: the programs decide by it too, wherever connection tracking has it.
func (s Threshold) Selects(protocol uint8, id, clientPort uint16) bool {
	return Threshold(trace.SamplingHash(protocol, id, clientPort)) <= s
}

// fractionOf returns which part of the lookups below another threshold it selects, from 0
// to 1.
func (s Threshold) fractionOf(all Threshold) float64 { return (float64(s) + 1) / (float64(all) + 1) }

// times returns the threshold that selects a part of the lookups, 0 at least.
func (s Threshold) times(part float64) Threshold {
	return Threshold(max(math.Ceil((float64(s)+1)*part), 1) - 1)
}

// ThresholdChange is a step of load shedding. A lookup that was under way at that time and
// is selected by only one of the thresholds was seen in part.
type ThresholdChange struct {
	At            int64 // ns of the monotonic clock
	Before, After Threshold
}

// When the threshold changes. A ring that is three quarters full at a poll may be full
// before the next: the threshold drops so that half of it would be used. It doubles once
// the rings have been at most a quarter full for some time, so that it does not oscillate.
const (
	fullRing    = 0.75
	wantedRing  = 0.5
	emptyRing   = 0.25
	calmFor     = int64(500 * time.Millisecond)
	minFraction = 1.0 / 256 // of the lookups that are reported without load
)

// shedder sheds load: it sets the threshold by how full the rings are when they are read,
// which shows whether user space keeps up, whatever the cause.
type shedder struct {
	ceiling   Threshold // what is reported without load
	threshold Threshold
	full      float64 // of any ring since the last decision; above 1: events were lost
	calm      int64   // since when the rings were at most as full as emptyRing
	part      int64   // when only a part of all lookups was reported last; 0: never
}

// reportedAll tells whether all datagrams that wait in sockets at a time were reported when
// they arrived.
func (s *shedder) reportedAll(at int64) bool {
	return s.threshold == AllLookups && (s.part == 0 || at-s.part > unreadFor)
}

// saw records the load of a ring at a poll: the fraction in use, and how many events it
// took and lost since the last poll. A lost event found the ring, or a perf buffer
// (nonlinear.go), full.
func (s *shedder) saw(used float64, taken, lost uint64) {
	if lost > 0 {
		used = max(used, 1) * (1 + float64(lost)/float64(max(taken, 1)))
	}
	s.full = max(s.full, used)
}

// decide returns the next threshold; false if it stays.
func (s *shedder) decide(now int64) (ThresholdChange, bool) {
	full := s.full
	s.full = 0
	if s.threshold != AllLookups {
		s.part = now
	}
	change := ThresholdChange{At: now, Before: s.threshold, After: s.threshold}
	switch {
	case full > fullRing:
		change.After = max(s.ceiling.times(minFraction), s.threshold.times(wantedRing/full))
	case full > emptyRing:
	case now-s.calm >= calmFor:
		change.After = s.ceiling.times(min(1, 2*s.threshold.fractionOf(s.ceiling)))
	default:
		return ThresholdChange{}, false
	}
	s.threshold, s.calm = change.After, now
	return change, change.After != change.Before
}
