package capture

import (
	"cmp"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/bpf"
)

// Loss is events that a program could not deliver.
type Loss struct {
	Kind   Kind // what the program sees
	CPU    int  // -1: the kernel counts for all together
	Events uint64
	// First and Last bound when they were lost, in ns of the monotonic clock.
	First, Last int64
}

// kinds is what each program sees. Others have no events of their own.
var kinds = map[string]Kind{
	bpf.DnstraceProgNetDevQueue: TX, bpf.DnstraceProgNetifReceive: RX,
	bpf.DnstraceProgKfreeSkb: Drop, bpf.DnstraceProgKfreeSkbOld: Drop,
	bpf.DnstraceProgCgroupIngress: Delivered, bpf.DnstraceProgSkDataReady: Delivered, bpf.DnstraceProgTcpProbe: Delivered,
	bpf.DnstraceProgSockRecvLength: Read,
}

// missesEvery is how often the kernel is asked for the runs that it skipped: a system call
// per program.
const missesEvery = int64(200 * time.Millisecond)

// lossReader remembers what was read and what was reported.
type lossReader struct {
	reported int64                  // when losses were
	seen     []bpf.DnstraceCounters // by CPU, as reported
	asked    int64                  // when the kernel was asked for runs left out
	missed   map[string]uint64      // how many it reported, by program
	pending  map[Kind]Loss          // those not reported yet
}

func newLossReader(cpus int) lossReader {
	now := Now()
	return lossReader{reported: now, asked: now, seen: make([]bpf.DnstraceCounters, cpus),
		missed: map[string]uint64{}, pending: map[Kind]Loss{}}
}

// Counters returns what became of all events since the start.
//
// Lost are those that found a ring full, or their scratch memory in use (bpf/guard.h), and
// the runs that the kernel skipped because the program was already running on that CPU. A
// skipped run may have been for a packet that is not DNS: of those it counts too many
// rather than too few.
func (s *Source) Counters() Counters {
	all := Counters{ReportedShare: s.shedder.threshold.fractionOf(s.shedder.ceiling), Forgotten: s.unread.forgotten}
	for cpu := range s.cpus {
		c := s.readCounters(cpu)
		all.Emitted += c.Emitted
		all.Lost += sum(c.Lost)
		all.Shed += c.Shed
		all.SampledOut += c.SampledOut
	}
	s.countMisses()
	for _, n := range s.loss.missed {
		all.Lost += n
	}
	return all
}

// Counters of events. All but ReportedShare only grow.
type Counters struct {
	Emitted       uint64
	Lost          uint64
	Shed          uint64  // packets of lookups that were left out under load
	SampledOut    uint64  // packets of lookups outside Config.Sample
	ReportedShare float64 // of the lookups in Config.Sample, reported now
	Forgotten     uint64  // delivered datagrams whose reading is not reported for lack of memory
}

func sum(lost [8]uint64) (all uint64) {
	for _, n := range lost {
		all += n
	}
	return all
}

// Losses returns what was lost since the last call, by program, in order of time.
// Together they are what Counters calls lost.
func (s *Source) Losses() []Loss {
	var all []Loss
	now := Now()
	for cpu := range s.cpus {
		c := s.readCounters(cpu)
		for kind, lost := range c.Lost {
			if n := lost - s.loss.seen[cpu].Lost[kind]; n > 0 {
				// The program writes the time after the count: it may be that of an earlier loss.
				last := max(int64(c.LastLost), s.loss.reported)
				all = append(all, Loss{Kind: Kind(kind), CPU: cpu, Events: n, First: s.loss.reported, Last: last})
			}
		}
		s.loss.seen[cpu] = c
	}
	s.loss.reported = now
	s.countMisses()
	for _, l := range s.loss.pending {
		all = append(all, l)
	}
	clear(s.loss.pending)
	slices.SortFunc(all, func(a, b Loss) int { return cmp.Compare(a.First, b.First) })
	return all
}

// countMisses asks for the runs that the kernel skipped, which it counts since Linux 5.12.
// Before 5.19 a process that dropped its privileges may not ask: then they stay unknown.
func (s *Source) countMisses() {
	now := Now()
	if now-s.loss.asked < missesEvery {
		return
	}
	for name, kind := range kinds {
		prog, ok := s.coll.Programs[name]
		if !ok {
			continue
		}
		stats, err := prog.Stats()
		if err != nil {
			continue
		}
		if s.loss.miss(name, stats.RecursionMisses, now) && kind >= Drop {
			s.lostAtSocket = true
		}
	}
	s.loss.asked = now
}

// miss records how many runs of a program were skipped since the start, and reports whether
// there are more than before.
func (r *lossReader) miss(program string, total uint64, now int64) bool {
	kind := kinds[program]
	n := total - r.missed[program]
	if n == 0 {
		return false
	}
	r.missed[program] = total
	l, ok := r.pending[kind]
	if !ok {
		l = Loss{Kind: kind, CPU: -1, First: r.asked}
	}
	l.Events += n
	l.Last = now
	r.pending[kind] = l
	return true
}

func (s *Source) readCounters(cpu int) bpf.DnstraceCounters {
	var c bpf.DnstraceCounters
	// In bounds by construction.
	_, _ = s.counters.ReadAt(bytesOf(&c), int64(cpu*counterBytes))
	return c
}
