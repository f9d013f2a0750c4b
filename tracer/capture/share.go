package capture

import (
	"math"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Share is which lookups are reported: so many of WholeShare, every packet of each.
type Share uint32

// WholeShare is all of them (bpf/share.h).
const WholeShare Share = 1 << 16

// Has tells whether the packets of a lookup are reported: those over UDP by their
// DNS ID, those over TCP by the ports of their connection as the client knows them. The
// programs decide alike, wherever connection tracking tells them the client's ports.
func (s Share) Has(protocol uint8, id, sport, dport uint16) bool {
	word := id
	if protocol != trace.TransportUDP {
		word = sport ^ dport
	}
	return Share(word*40503) < s
}

// Reshare is a change of the share. A lookup that was under way then, and is in one
// of the two only, was seen in part.
type Reshare struct {
	At            int64 // ns of the monotonic clock
	Before, After Share
}

// Limits of when the share changes. A ring that is three quarters full at a poll may
// be full before the next: then half of it is aimed for. Twice as much is tried where
// it has been at most a quarter full for some time, so that the share does not swing.
const (
	fullRing     = 0.75
	wantedRing   = 0.5
	emptyRing    = 0.25
	calmFor      = int64(500 * time.Millisecond)
	minimalShare = WholeShare / 256
)

// sharer decides how many lookups are reported, by how full the rings are when they
// are read: that is the one measure of what user space can follow, whatever keeps
// it.
type sharer struct {
	share Share
	full  float64 // of any ring since the last decision; above 1: events were lost
	calm  int64   // since when the rings were at most as full as emptyRing
}

// saw notes how full a ring was at a poll: how much of it was in use, and how many
// events it took and lost since the last. What was lost found it full, or a perf buffer
// (paged.go).
func (s *sharer) saw(used float64, taken, lost uint64) {
	if lost > 0 {
		used = max(used, 1) * (1 + float64(lost)/float64(max(taken, 1)))
	}
	s.full = max(s.full, used)
}

// decide returns the share to report from now on; false if it stays.
func (s *sharer) decide(now int64) (Reshare, bool) {
	full := s.full
	s.full = 0
	change := Reshare{At: now, Before: s.share, After: s.share}
	switch {
	case full > fullRing:
		change.After = max(minimalShare, Share(math.Ceil(float64(s.share)*wantedRing/full)))
	case full > emptyRing:
	case now-s.calm >= calmFor:
		change.After = min(WholeShare, 2*s.share)
	default:
		return Reshare{}, false
	}
	s.share, s.calm = change.After, now
	return change, change.After != change.Before
}
