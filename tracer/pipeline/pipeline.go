// Package pipeline runs the steps of the tracer on live packets: capture →
// exchange → assemble → diagnose → export.
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

// How often the rings are read: while packets come, and while none do. It bounds
// how long a trace waits and how much a ring must hold (4 MiB hold 20 ms of half
// a million packets a second); a wakeup for every packet would cost ten times
// what the packet does.
const (
	pollBusy = 5 * time.Millisecond
	pollIdle = 20 * time.Millisecond
)

// publishEvery is how old the counters may be that others see.
const publishEvery = 200 * time.Millisecond

// Sink takes records at the end of the pipeline. It must not block and must not
// keep the record.
type Sink func(trace.Record)

// Config of a pipeline. All but Sink is needed.
type Config struct {
	Source   *capture.Source
	Receiver *receive.Receiver
	Ports    []uint16
	Timeout  time.Duration // without a response for this long: unanswered
	Exchange Sink          // nil: nobody wants exchange records
	Trace    Sink
	Flush    func() // called when a round of records is complete
}

// Pipeline is one running tracer.
type Pipeline struct {
	cfg       Config
	clock     capture.Clock
	table     *exchange.Table
	assembler *assemble.Assembler
	lost      uint64
	packets   uint64
	published int64 // monotonic ns
	counters  atomic.Pointer[Counters]
	traces    uint64
	exchanges map[string]uint64
	findings  map[string]uint64
}

// Counters is what the pipeline did so far. All only grow, but for OpenExchanges
// and PendingTraces.
type Counters struct {
	Events, LostEvents uint64
	Exchanges          map[string]uint64 // by outcome
	Findings           map[string]uint64 // by code
	Traces             uint64
	OpenExchanges      int
	PendingTraces      int
	EvictedExchanges   uint64
	EvictedTraces      uint64
	NotDNS             uint64
	Orphans            uint64
	Unreadable         uint64
	Unfinished         uint64
	Receive            receive.Stats
}

// New returns a pipeline that has not started.
func New(cfg Config) *Pipeline {
	p := &Pipeline{cfg: cfg, exchanges: map[string]uint64{}, findings: map[string]uint64{}}
	p.clock.Sync()
	p.table = exchange.New(exchange.Config{Ports: cfg.Ports, Timeout: cfg.Timeout, Wall: p.clock.Wall})
	p.assembler = assemble.New(assemble.Config{Timeout: cfg.Timeout})
	p.publish()
	return p
}

// Run works until ctx ends, then passes on what it holds. The error says what
// made it impossible to go on.
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
			p.assembler.Add(r)
		case <-tick.C:
			packets := p.packets
			if err := p.round(); err != nil {
				return err
			}
			if p.packets != packets {
				tick.Reset(pollBusy)
			} else {
				tick.Reset(pollIdle)
			}
		}
	}
}

// round reads the rings once and passes on what is over.
func (p *Pipeline) round() error {
	// First the loss, then the packets: what was lost was lost before now, while
	// the exchanges were open that are open now.
	p.clock.Sync()
	_, lost := p.cfg.Source.Counters()
	upTo, err := p.cfg.Source.Poll(p.packet)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	if lost > p.lost {
		p.table.Lost(lost - p.lost)
		p.lost = lost
	}
	p.table.Advance(upTo, p.exchange)
	p.finish(p.assembler.Advance(p.clock.Wall(upTo)))
	p.cfg.Flush()
	if upTo-p.published >= int64(publishEvery) {
		p.published = upTo
		p.publish()
	}
	return nil
}

func (p *Pipeline) packet(packet *capture.Packet) {
	p.packets++
	p.table.Packet(packet)
}

func (p *Pipeline) exchange(ex *trace.Exchange) {
	p.exchanges[ex.Outcome]++
	if p.cfg.Exchange != nil {
		p.cfg.Exchange(ex)
	}
	p.assembler.Add(ex)
}

func (p *Pipeline) finish(done []*trace.Trace) {
	for _, t := range done {
		t.Diagnosis = diagnose.Trace(t)
		p.traces++
		for i := range t.Diagnosis {
			p.findings[t.Diagnosis[i].Code]++
		}
		p.cfg.Trace(t)
	}
}

// stop passes on everything that is open, as it stands.
func (p *Pipeline) stop() error {
	err := p.round()
	for {
		select {
		case r, ok := <-p.cfg.Receiver.Records():
			if ok {
				p.assembler.Add(r)
				continue
			}
		default:
		}
		break
	}
	p.table.Flush(p.exchange)
	p.finish(p.assembler.Flush())
	p.cfg.Flush()
	p.publish()
	return err
}

// publish makes the counters readable from other goroutines.
func (p *Pipeline) publish() {
	emitted, lost := p.cfg.Source.Counters()
	ex, as := p.table.Stats(), p.assembler.Stats()
	p.counters.Store(&Counters{
		Events: emitted, LostEvents: lost,
		Exchanges: maps.Clone(p.exchanges), Findings: maps.Clone(p.findings), Traces: p.traces,
		OpenExchanges: ex.Open, PendingTraces: as.Pending, EvictedExchanges: ex.Evicted, EvictedTraces: as.Evicted,
		NotDNS: ex.NotDNS, Orphans: ex.Orphans, Unreadable: ex.Unreadable, Unfinished: ex.Unfinished,
		Receive: p.cfg.Receiver.Stats(),
	})
}

// Counters returns the counters as of the last round.
func (p *Pipeline) Counters() *Counters { return p.counters.Load() }
