package capture

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/dnstrace/dnstrace/bpf"
)

// ringDelay bounds the time from an event's timestamp until it is in its ring: a program
// runs in less than a microsecond, an interrupt in the middle of it for some more.
const ringDelay = int64(time.Millisecond)

// Poll reads what is in the rings and passes on, in order of time, every packet
// that no earlier one can follow any more. It returns the time up to which all
// packets have been delivered, in ns of the monotonic clock. It does not block.
func (s *Source) Poll(deliver func(*Packet)) (int64, error) {
	upTo := Now() - ringDelay
	s.decoder.netns.renew()
	s.servers.renew()
	if err := s.rechoose(); err != nil {
		return 0, err
	}
	s.waiting = s.waiting[:0]
	for cpu, r := range s.rings {
		s.look(cpu, r)
		s.waiting = append(s.waiting, r.AvailableBytes())
	}
	if err := s.drainPerfBuffers(); err != nil {
		return 0, err
	}
	if err := s.shed(); err != nil {
		return 0, err
	}
	s.unread.expire(upTo)
	if s.lostAtSocket {
		s.unread.clear()
	}
	err := s.pass(upTo, deliver)
	if s.lostAtSocket {
		s.unread.clear()
		s.lostAtSocket = false
	}
	return upTo, err
}

// chunkBytes is read of all rings together before it is passed on, so that it is still in
// the processor's cache, and memory stays bounded however full the rings are. leastChunk is
// the minimum of one ring: some hundred events.
const (
	chunkBytes = 512 << 10
	leastChunk = 32 << 10
)

// pass reads what waited in the rings when the poll began, and passes on the packets up to
// a time, chunk by chunk. What comes meanwhile stays for the next poll: else a poll would
// not end on a node that is busier than the tracer can follow.
func (s *Source) pass(upTo int64, deliver func(*Packet)) error {
	var p Packet
	for more := true; more; {
		more = false
		until := upTo
		for cpu, r := range s.rings {
			if err := s.drain(cpu, r); err != nil {
				return err
			}
			if s.waiting[cpu] > 0 {
				more = true
				until = min(until, s.pending.newest()-ringDelay)
			}
		}
		err := s.pending.take(until, func(raw []byte) error {
			if err := s.decoder.decode(&p, raw); err != nil {
				return err
			}
			s.unread.passDoubts(deliver)
			if (p.Kind != Drop || isDrop(&p) || p.NotForHost) && s.atSocket(&p) {
				deliver(&p)
			}
			s.unread.passDoubts(deliver)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// past is a deadline with which a reader never blocks.
var past = time.Unix(1, 0)

// ringRecord is the size of a record's header in a ring, and the alignment of its data
// (kernel/bpf/ringbuf.c).
const ringRecord = 8

// look records the load of a ring.
func (s *Source) look(cpu int, r *ringbuf.Reader) {
	used := float64(r.AvailableBytes()) / float64(r.BufferSize())
	if cpu >= s.cpus {
		s.shedder.saw(used, 0, 0) // it shares its counters with another
		return
	}
	before, now := s.polled[cpu], s.readCounters(cpu)
	if now.Lost[Delivered] != before.Lost[Delivered] || now.Lost[Read] != before.Lost[Read] || now.Lost[Drop] != before.Lost[Drop] {
		s.lostAtSocket = true
	}
	s.shedder.saw(used, now.Emitted-before.Emitted, sum(now.Lost)-sum(before.Lost))
	s.polled[cpu] = now
}

// shed adjusts the threshold of the programs to the load.
func (s *Source) shed() error {
	now := Now()
	change, ok := s.shedder.decide(now)
	if err := s.setWaitingKnown(now); err != nil || !ok {
		return err
	}
	if err := s.coll.Variables[bpf.DnstraceVarShare].Set(uint32(change.After)); err != nil {
		return fmt.Errorf("change the share of lookups that is reported: %w", err)
	}
	s.changes = append(s.changes, change)
	s.lostAtSocket = true // reads of other lookups are not reported
	return nil
}

// setWaitingKnown sets in the programs whether every datagram that may wait at a socket is
// known: if not, they report for each read what the reader got.
func (s *Source) setWaitingKnown(now int64) error {
	known := s.allWaitingKnown(now)
	if known == s.waitingKnown {
		return nil
	}
	var on uint32
	if known {
		on = 1
	}
	if err := s.coll.Variables[bpf.DnstraceVarWaitingKnown].Set(on); err != nil {
		return fmt.Errorf("tell whether all that waits at sockets is known: %w", err)
	}
	s.waitingKnown = known
	return nil
}

// allWaitingKnown tells whether every datagram that waits at a socket at a time was
// reported when it came.
func (s *Source) allWaitingKnown(at int64) bool {
	return s.exact() && s.shedder.reportedAll(at)
}

// rechoose makes the programs observe the namespaces that have the chosen names now.
func (s *Source) rechoose() error {
	changed := false
	for i := range s.chosen {
		changed = s.chosen[i].renew() || changed
	}
	if !changed {
		return nil
	}
	if err := s.coll.Variables[bpf.DnstraceVarNetnsInodes].Set(inodes(s.chosen)); err != nil {
		return fmt.Errorf("change the namespaces that are observed: %w", err)
	}
	return nil
}

// ThresholdChanges returns the changes since the last call, in order of time.
func (s *Source) ThresholdChanges() []ThresholdChange {
	c := s.changes
	s.changes = nil
	return c
}

// drain reads a chunk of what waits in a ring.
func (s *Source) drain(cpu int, r *ringbuf.Reader) error {
	chunk := max(leastChunk, chunkBytes/len(s.rings))
	for read := 0; s.waiting[cpu] > 0 && read < chunk; {
		s.record.RawSample = s.pending.room()
		err := r.ReadInto(&s.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.waiting[cpu] = 0
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a ring: %w", err)
		}
		raw := s.record.RawSample
		if len(raw) < eventSize {
			return fmt.Errorf("read a ring: a record of %d bytes is shorter than an event", len(raw))
		}
		s.pending.add(raw)
		took := ringRecord + (len(raw)+ringRecord-1)/ringRecord*ringRecord
		s.waiting[cpu] -= took
		read += took
	}
	return nil
}
