// Package pipeline runs the steps of the tracer on live packets: capture →
// exchange → assemble → diagnose → export.
//
// DNS comes first: the tracer takes the processor time that is left over (package
// priority). Where a step cannot keep up, nothing waits for it, and what is left out
// is counted:
//
//   - Where a ring is found three quarters full, the programs shed load: they report the
//     lookups whose [trace.SamplingHash] is up to a threshold ([capture.Threshold]), with
//     all of their packets, and none of the others. The threshold rises again when there
//     has been room for half a second. A lookup that was under way while the threshold
//     changed is discarded. An upstream query has an ID of its own: it may be missing in
//     the trace of the lookup that caused it.
//   - A ring that is full before that loses the events that come, of its CPU alone.
//     Exchanges that were open then say how many (`lost_events`).
//   - A table that is full passes on its oldest exchange or lookup as it stands.
//   - An output that is slow loses whole records, the newest.
//   - The history of finished traces evicts the oldest.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
	"github.com/dnstrace/dnstrace/tracer/exchange"
	"github.com/dnstrace/dnstrace/tracer/receive"
)

// How often the rings are read: while many packets come, and while few do. It bounds
// how long a trace waits and how much a ring must hold (4 MiB hold 20 ms of half
// a million packets a second, 50 ms of 200,000); a wakeup for every packet would cost
// ten times what the packet does, and a round itself some 100 µs.
const (
	pollBusy = 20 * time.Millisecond
	pollIdle = 50 * time.Millisecond
	// manyPackets is the size of a round from which on the next comes soon: some 150 KiB of a
	// ring, of 60 lookups through a Service.
	manyPackets = 750
)

// lastPackets bounds the delay until a packet is delivered: it is longer than the source
// holds packets back to order them.
const lastPackets = 5 * time.Millisecond

// publishEvery bounds the age of the published counters.
const publishEvery = 200 * time.Millisecond

// Sink takes a record at the end of the pipeline, with its JSON without a newline, which is
// encoded once for all sinks. It must not block, must not change the record, and must not
// keep a trace, or the line: their memory is reused.
type Sink func(r trace.Record, line []byte)

// Source delivers packets in order of time ([capture.Source]).
type Source interface {
	// Poll passes on what has come since the last call and returns the time,
	// on the clock of the packets, up to which nothing is missing.
	Poll(deliver func(*capture.Packet)) (upTo int64, err error)
	// Losses returns what was lost since the last call.
	Losses() []capture.Loss
	// ThresholdChanges returns the steps of load shedding since the last call.
	ThresholdChanges() []capture.ThresholdChange
	// Observes returns what is seen at sockets. It does not change.
	Observes() capture.Observes
	// Counters returns what became of the packets since the start.
	Counters() capture.Counters
}

// Receiver delivers the plugin's records ([receive.Receiver]).
type Receiver interface {
	Records() <-chan receive.Record
	// Shows says that packets show a process, or, where that is unknown (0), its cgroup, as a
	// server.
	Shows(pid int, cgroup string)
	Stats() receive.Stats
	// Close stops reception. What was received is still delivered, and then the channel is
	// closed.
	Close() error
}

// Enricher names the clients and servers of records ([kube.Cluster]). It must not block.
//
// [kube.Cluster]: https://pkg.go.dev/github.com/dnstrace/dnstrace/tracer/kube#Cluster
type Enricher interface {
	Exchange(*trace.Exchange)
	Trace(*trace.Trace)
}

// Servers names the servers of unanswered exchanges, and knows which process holds which
// socket ([listener.Sockets]).
//
// [listener.Sockets]: https://pkg.go.dev/github.com/dnstrace/dnstrace/tracer/listener#Sockets
type Servers interface {
	Exchange(*trace.Exchange)
	assemble.Sockets
}

// Clock converts the monotonic time of packets to UTC ([capture.Clock]). Sync is called
// before every round of packets, so that they get times after a step of the system's time.
type Clock interface {
	Sync()
	Wall(mono int64) time.Time
}

// Config of a pipeline. Exchange, Observe, Names, Servers, Enricher, Clock, Limitations and
// Sample are optional.
type Config struct {
	Source      Source
	Receiver    Receiver
	Ports       []uint16
	Timeout     time.Duration // without a response for this long: unanswered
	Limitations assemble.Limitations
	Sample      *float64 // share of the ordinary lookups that is passed on, 0 to 1; nil: all
	InKernel    bool     // the source reports no other lookups than those
	Names       exchange.Names
	Node        string   // this one\'s name; empty: unknown
	Servers     Servers  // nil: silent servers stay unknown
	Enricher    Enricher // nil: no enrichment
	Clock       Clock    // nil: the system's
	Exchange    Sink     // nil: no exchange records
	Trace       Sink
	Observe     func(*trace.Trace) // called for every trace, also those that Sample leaves out; must not keep it
	Flush       func()             // called when a round of records is complete
	Last        func()             // called before the records that are left at the end
}

// Pipeline is one running tracer.
type Pipeline struct {
	cfg       Config
	clock     Clock
	table     *exchange.Table
	assembler *assemble.Assembler
	diagnoser *diagnose.Diagnoser
	losses    []capture.Loss            // to attribute in the next round
	changes   []capture.ThresholdChange // to apply when all packets of their time have come
	lost      [8]uint64                 // by capture.Kind
	packets   uint64
	steps     uint64    // of the clock
	before    assembled // by assemblers before the clock was stepped
	published int64     // monotonic ns
	passedTo  int64     // monotonic ns: up to when exchanges were passed on
	counters  atomic.Pointer[Counters]
	traces    uint64
	exchanges map[string]uint64
	findings  map[string]uint64
	sampler   sampler
	leftOut   map[string]uint64 // by kind of record: sampling did not choose them
	line      []byte            // of the record that is passed on
}

// Counters is what the pipeline did so far. All but ReportedShare, OpenExchanges and
// PendingTraces only grow.
type Counters struct {
	At                 time.Time // when they were so
	Events, LostEvents uint64
	ShedEvents         uint64
	UnsampledEvents    uint64            // of lookups that the kernel left out of the sample
	ReportedShare      float64           // of the lookups, reported now
	LostByHook         map[string]uint64 // tx, rx, drop, delivered, read
	Exchanges          map[string]uint64 // by outcome
	Findings           map[string]uint64 // by code
	SampledOut         map[string]uint64 // by kind of record: ordinary, and not among the rate
	Traces             uint64
	OpenExchanges      int
	PendingTraces      int
	ExchangeBytes      int // memory of the open exchanges
	TraceBytes         int // of the pending traces, and of what was passed on and may go on
	EvictedExchanges   uint64
	EvictedTraces      uint64
	ClockSteps         uint64
	NoConnect          uint64
	NotDNS             uint64
	Orphans            uint64
	Unreadable         uint64
	Omitted            map[string]uint64 // of exchanges that had too many: sightings, fragments, addresses
	Unfinished         uint64
	Discarded          uint64
	Receive            receive.Stats
	ForeignRecords     uint64 // of processes that are not the server: refused
	UnverifiedRecords  uint64 // shown, and nothing concluded
}

// ReasonSender is why records are refused that a process sent which is not the server.
const ReasonSender = "sender"

// RefusedRecords returns the records of CoreDNS that were not taken, by reason.
func (c *Counters) RefusedRecords() map[string]uint64 {
	all := make(map[string]uint64, len(receive.Reasons)+1)
	for _, reason := range receive.Reasons {
		all[reason] = c.Receive.Refused[reason]
	}
	all[ReasonSender] = c.ForeignRecords
	return all
}

// assembled counts what assemblers did.
type assembled struct{ evicted, foreign, unverified uint64 }

func (n *assembled) add(s assemble.Stats) {
	n.evicted += s.Evicted
	n.foreign += s.Foreign
	n.unverified += s.Unverified
}

// New returns a pipeline that has not started.
func New(cfg Config) *Pipeline {
	p := &Pipeline{cfg: cfg, clock: cfg.Clock, exchanges: map[string]uint64{}, findings: map[string]uint64{},
		sampler: sampler{cfg.Sample, cfg.InKernel}, leftOut: map[string]uint64{}}
	if p.clock == nil {
		p.clock = new(capture.Clock)
	}
	p.clock.Sync()
	p.table = exchange.New(exchange.Config{
		Ports: cfg.Ports, Timeout: cfg.Timeout, Observes: cfg.Source.Observes(), Wall: p.clock.Wall, Names: cfg.Names, Node: cfg.Node,
	})
	p.assembler = p.newAssembler()
	p.diagnoser = diagnose.New()
	p.publish()
	return p
}

func (p *Pipeline) newAssembler() *assemble.Assembler {
	return assemble.New(assemble.Config{Timeout: p.cfg.Timeout, Limitations: p.cfg.Limitations, Open: p.table, Sockets: p.cfg.Servers})
}

// Run works until ctx ends or an error stops it, then passes on what it holds.
func (p *Pipeline) Run(ctx context.Context) error {
	tick := time.NewTimer(pollIdle)
	defer tick.Stop()
	records := p.cfg.Receiver.Records()
	for {
		select {
		case <-ctx.Done():
			return p.stop()
		case r, ok := <-records:
			if !ok {
				return errors.New("the record socket was closed")
			}
			p.report(r)
		case <-tick.C:
			packets := p.packets
			if err := p.round(); err != nil {
				return err
			}
			if p.packets-packets >= manyPackets {
				tick.Reset(pollBusy)
			} else {
				tick.Reset(pollIdle)
			}
		}
	}
}

// round reads the rings once and passes on what is over.
func (p *Pipeline) round() error {
	p.sync()
	losses := p.cfg.Source.Losses()
	upTo, err := p.cfg.Source.Poll(p.packet)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	// Those of the round before: the exchanges of their time have all begun.
	p.attribute(p.losses)
	p.losses = losses
	p.applyThresholds(upTo)
	p.passedTo = max(p.passedTo, beforeLosses(upTo, losses))
	p.table.Advance(p.passedTo, p.exchange)
	p.assembler.Pass(p.clock.Wall(p.passedTo), p.finish)
	p.cfg.Flush()
	if upTo-p.published >= int64(publishEvery) {
		p.published = upTo
		p.publish()
	}
	return nil
}

// beforeLosses returns up to when exchanges may be passed on: those that were open
// while events were lost have to say so, which they learn in the next round. It
// matters where the tracer got no processor time for as long as a query may wait.
func beforeLosses(upTo int64, losses []capture.Loss) int64 {
	for _, l := range losses {
		upTo = min(upTo, l.First-1)
	}
	return upTo
}

// maxSlew is how far the clocks may drift apart between two rounds without a step
// of the system's time: adjtimex(2) slews by half a millisecond a second.
const maxSlew = 10 * time.Millisecond

// sync reads the clocks. Where the system's time was stepped, what is held is passed on
// as it stands: it cannot be joined with what comes, and might wait for a time in the
// distant future.
func (p *Pipeline) sync() {
	before := p.clock.Wall(0)
	p.clock.Sync()
	if p.clock.Wall(0).Sub(before).Abs() <= maxSlew {
		return
	}
	p.steps++
	p.before.add(p.assembler.Stats())
	p.flush()
	p.assembler = p.newAssembler()
	p.diagnoser = diagnose.New()
}

// attribute adds losses to the exchanges that were open.
func (p *Pipeline) attribute(losses []capture.Loss) {
	for _, l := range losses {
		p.table.Lost(l.Events, l.First, l.Last)
		if int(l.Kind) < len(p.lost) {
			p.lost[l.Kind] += l.Events
		}
	}
}

// applyThresholds discards what was seen in part because of a step of load shedding.
func (p *Pipeline) applyThresholds(upTo int64) {
	p.changes = append(p.changes, p.cfg.Source.ThresholdChanges()...)
	for len(p.changes) > 0 && p.changes[0].At+int64(exchange.Crossing) <= upTo {
		p.table.ThresholdChanged(p.changes[0])
		p.changes = p.changes[1:]
	}
}

func (p *Pipeline) report(r receive.Record) {
	r.Taken()
	p.assembler.Report(r.Record, r.From)
}

func (p *Pipeline) packet(packet *capture.Packet) {
	p.packets++
	p.table.Packet(packet)
}

func (p *Pipeline) exchange(ex *trace.Exchange) {
	if !ex.Replaces {
		p.exchanges[ex.Outcome]++
	}
	p.sampler.mark(ex)
	if p.cfg.Servers != nil {
		p.cfg.Servers.Exchange(ex)
	}
	if ex.Server != nil && ex.Milestones.Response.Left.Seen() {
		p.cfg.Receiver.Shows(ex.Server.PID, ex.Server.Cgroup)
	}
	if p.cfg.Enricher != nil {
		p.cfg.Enricher.Exchange(ex)
	}
	switch {
	case p.cfg.Exchange == nil:
	case p.sampler.exchange(ex):
		p.pass(p.cfg.Exchange, ex)
	default:
		p.leftOut[trace.KindExchange]++
	}
	p.assembler.Add(ex)
}

func (p *Pipeline) finish(t *trace.Trace) {
	if p.cfg.Enricher != nil {
		p.cfg.Enricher.Trace(t)
	}
	t.Diagnosis = p.diagnoser.Trace(t)
	p.count(t)
	if p.cfg.Observe != nil {
		p.cfg.Observe(t)
	}
	if p.sampler.trace(t) {
		p.pass(p.cfg.Trace, t)
	} else {
		p.leftOut[trace.KindTrace]++
	}
}

func (p *Pipeline) flush() {
	for _, t := range p.assembler.Flush() {
		p.finish(t)
	}
}

// count counts a lookup once: what replaces a trace was counted as that.
func (p *Pipeline) count(t *trace.Trace) {
	if t.Replaces {
		return
	}
	p.traces++
	for i := range t.Diagnosis {
		if f := &t.Diagnosis[i]; !f.InDoubt {
			p.findings[f.Code]++
		}
	}
}

func (p *Pipeline) pass(to Sink, r trace.Record) {
	p.line = r.AppendJSON(p.line[:0])
	to(r, p.line)
}

// stop passes on everything that is open, as it stands.
func (p *Pipeline) stop() error {
	p.cfg.Last()
	err := p.round()
	if err == nil {
		// What was seen up to now may be on its way for a moment.
		time.Sleep(lastPackets)
		err = p.round()
	}
	err = errors.Join(err, p.cfg.Receiver.Close())
	for r := range p.cfg.Receiver.Records() {
		p.report(r)
	}
	p.attribute(p.losses)
	p.table.Flush(p.exchange)
	p.flush()
	p.cfg.Flush()
	p.publish()
	return err
}

// publish makes the counters readable from other goroutines.
func (p *Pipeline) publish() {
	seen := p.cfg.Source.Counters()
	ex, as := p.table.Stats(), p.assembler.Stats()
	total := p.before
	total.add(as)
	p.counters.Store(&Counters{
		At:     time.Now(),
		Events: seen.Emitted, LostEvents: seen.Lost,
		ShedEvents: seen.Shed, UnsampledEvents: seen.SampledOut, ReportedShare: seen.ReportedShare,
		LostByHook: map[string]uint64{"tx": p.lost[capture.TX], "rx": p.lost[capture.RX], "drop": p.lost[capture.Drop],
			"delivered": p.lost[capture.Delivered], "read": p.lost[capture.Read]},
		Exchanges: maps.Clone(p.exchanges), Findings: maps.Clone(p.findings), Traces: p.traces, SampledOut: maps.Clone(p.leftOut),
		OpenExchanges: ex.Open, PendingTraces: as.Pending, ExchangeBytes: ex.Bytes, TraceBytes: as.Bytes, EvictedExchanges: ex.Evicted, EvictedTraces: total.evicted,
		ClockSteps: p.steps, NoConnect: ex.NoConnect,
		NotDNS: ex.NotDNS, Orphans: ex.Orphans, Unreadable: ex.Unreadable, Unfinished: ex.Unfinished, Discarded: ex.Discarded,
		Omitted: map[string]uint64{"sightings": ex.Sightings, "fragments": ex.Fragments, "addresses": ex.Addresses},
		Receive: p.cfg.Receiver.Stats(), ForeignRecords: total.foreign, UnverifiedRecords: total.unverified,
	})
}

// Counters returns the counters as of the last round.
func (p *Pipeline) Counters() *Counters { return p.counters.Load() }
