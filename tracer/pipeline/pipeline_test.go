package pipeline

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/receive"
)

// scripted is a source that delivers what a test puts in.
type scripted struct {
	now     int64
	packets []capture.Packet
	losses  []capture.Loss
	lost    uint64
	// changes are delivered at the next round.
	changes []capture.ThresholdChange
}

// Poll implements Source.
func (s *scripted) Poll(deliver func(*capture.Packet)) (int64, error) {
	for i := range s.packets {
		deliver(&s.packets[i])
	}
	s.packets = nil
	return s.now, nil
}

// Losses implements Source.
func (s *scripted) Observes() capture.Observes { return capture.Observes{} }

func (s *scripted) Losses() []capture.Loss {
	l := s.losses
	s.losses = nil
	return l
}

// Counters implements Source.
func (s *scripted) Counters() capture.Counters { return capture.Counters{Lost: s.lost} }

// ThresholdChanges implements Source.
func (s *scripted) ThresholdChanges() []capture.ThresholdChange {
	r := s.changes
	s.changes = nil
	return r
}

// stepped is a clock that shows a step when it is read anew, as a real one does.
type stepped struct{ shown, offset time.Duration }

// Sync implements Clock.
func (c *stepped) Sync() { c.shown = c.offset }

// Wall implements Clock.
func (c *stepped) Wall(mono int64) time.Time { return epoch.Add(time.Duration(mono) + c.shown) }

var epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

// bench drives a pipeline by hand.
type bench struct {
	t         *testing.T
	source    *scripted
	clock     *stepped
	pipeline  *Pipeline
	exchanges []*trace.Exchange
	traces    []*trace.Trace
	last      int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, source: &scripted{now: int64(time.Hour)}, clock: &stepped{}}
	b.pipeline = New(Config{
		Source: b.source, Receiver: make(silent), Ports: []uint16{53}, Timeout: 5 * time.Second, Clock: b.clock,
		Exchange: func(r trace.Record, line []byte) {
			b.exchanges = append(b.exchanges, decoded(t, r, line).(*trace.Exchange))
		},
		Trace: func(r trace.Record, line []byte) { b.traces = append(b.traces, decoded(t, r, line).(*trace.Trace)) },
		Flush: func() {},
		Last:  func() { b.last++ },
	})
	return b
}

// decoded returns what the line says, which is what the record says.
func decoded(t *testing.T, r trace.Record, line []byte) trace.Record {
	t.Helper()
	got, err := trace.Decode(line)
	if err != nil || !bytes.Equal(line, r.AppendJSON(nil)) {
		t.Fatalf("%s: %v", line, err)
	}
	return got
}

// round lets time pass and runs one round.
func (b *bench) round(d time.Duration) {
	b.t.Helper()
	b.source.now += int64(d)
	if err := b.pipeline.round(); err != nil {
		b.t.Fatal(err)
	}
}

// lookup puts in a lookup on loopback that begins now and takes 40 µs.
func (b *bench) lookup(name string, id uint16) {
	b.t.Helper()
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	q.Id = id
	r := new(dns.Msg).SetReply(q)
	client, local := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:53")
	for i, m := range []*dns.Msg{q, q, r, r} {
		wire, err := m.Pack()
		if err != nil {
			b.t.Fatal(err)
		}
		p := capture.Packet{
			Time: b.source.now + int64(i)*10_000, SKB: uint64(id)<<2 + uint64(i/2), Kind: capture.Kind(1 + i%2), Protocol: trace.TransportUDP,
			Src: client, Dst: local, NetNS: 1, IfIndex: 1, IfName: "lo", Payload: wire, PayloadLen: len(wire),
		}
		if m == r {
			p.Src, p.Dst = p.Dst, p.Src
		}
		if p.Kind == capture.TX {
			p.PID = 100 + i // two processes
		}
		b.source.packets = append(b.source.packets, p)
	}
}

// After a step of the system's time, forward or back, the next packets have the
// new time, what was held is passed on once, and what comes is joined as ever.
func TestClockStep(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.lookup("before.example.", 1)
			b.round(50 * time.Millisecond)
			before := b.clock.Wall(b.source.now - int64(50*time.Millisecond))
			b.round(200 * time.Millisecond)

			b.clock.offset = step
			b.source.now += int64(time.Second)
			b.lookup("after.example.", 2)
			start := epoch.Add(time.Duration(b.source.now) + step)
			b.round(20 * time.Millisecond)
			if len(b.traces) != 1 || b.traces[0].QName != "before.example." || !b.traces[0].Time.Equal(before) {
				t.Fatalf("held at the step: %+v", b.traces)
			}
			b.round(200 * time.Millisecond)
			if len(b.exchanges) != 2 || !b.exchanges[1].Time.Equal(start) || b.exchanges[1].Duration.Duration() != 30*time.Microsecond {
				t.Fatalf("after the step: %+v, want time %s", b.exchanges[len(b.exchanges)-1], start)
			}
			b.pipeline.assembler.Add(recordOf(b.exchanges[1]))
			b.round(3 * time.Second)
			if len(b.traces) != 2 || b.traces[1].Query == nil || b.traces[1].QName != "after.example." {
				t.Fatalf("%d traces; the record of the server is not joined: %+v", len(b.traces), b.traces[len(b.traces)-1])
			}
			b.pipeline.publish()
			if n := b.pipeline.Counters().ClockSteps; n != 1 {
				t.Errorf("%d steps", n)
			}
		})
	}
}

// recordOf is what the plugin says of the query of an exchange.
func recordOf(ex *trace.Exchange) *trace.Query {
	q := &trace.Query{Header: ex.Header, DNS: ex.DNS, Outcome: trace.OutcomeAnswered}
	q.Record = trace.KindQuery
	q.Time = ex.Time.Add(20 * time.Microsecond)
	return q
}

// The system's time drifts by less: no step.
func TestDriftIsNoStep(t *testing.T) {
	b := newBench(t)
	for range 100 {
		b.clock.offset += maxSlew / 2
		b.round(20 * time.Millisecond)
	}
	b.pipeline.publish()
	if n := b.pipeline.Counters().ClockSteps; n != 0 {
		t.Errorf("%d steps", n)
	}
}

// A loss is known before the packets of its time are all delivered; still it is
// put down to their exchanges.
func TestLossesReachTheExchangesOfTheirTime(t *testing.T) {
	b := newBench(t)
	b.lookup("before.example.", 1)
	b.round(time.Second)
	first := b.source.now
	b.source.losses = []capture.Loss{{Kind: capture.RX, Events: 3, First: first, Last: first + int64(5*time.Millisecond)}}
	b.source.lost = 3
	b.round(time.Millisecond)
	b.lookup("during.example.", 2) // delivered a round later
	b.round(20 * time.Millisecond)
	b.source.now += int64(time.Second)
	b.lookup("after.example.", 3)
	b.round(20 * time.Millisecond)
	b.round(time.Second)
	got := map[string]uint64{}
	for _, ex := range b.exchanges {
		got[ex.QName] = ex.LostEvents
	}
	if len(got) != 3 || got["before.example."] != 0 || got["during.example."] != 3 || got["after.example."] != 0 {
		t.Errorf("lost events: %v", got)
	}
	b.pipeline.publish()
	if c := b.pipeline.Counters(); c.LostEvents != 3 || c.LostByHook["rx"] != 3 || c.LostByHook["tx"] != 0 {
		t.Errorf("counters: %+v", c)
	}
}

// A lookup that a step of load shedding splits is discarded once its packets have come, not
// before; a complete one is a record.
func TestThresholdChangeWaitsForItsPackets(t *testing.T) {
	const tenth = capture.AllLookups / 10
	in, out := uint16(0), uint16(0)
	for id := uint16(1); in == 0 || out == 0; id++ {
		if tenth.Selects(trace.TransportUDP, id, 40000) {
			in = id
		} else {
			out = id
		}
	}
	b := newBench(t)
	b.source.changes = []capture.ThresholdChange{{At: b.source.now, Before: capture.AllLookups, After: tenth}}
	b.round(time.Millisecond) // the packets up to the change are not delivered yet
	b.source.now -= int64(2 * time.Millisecond)
	b.lookup("kept.example.", in)
	b.lookup("discarded.example.", out)
	half := b.source.packets[4]
	b.source.packets = append(b.source.packets[:4], half) // its query, once
	b.source.now += int64(2 * time.Millisecond)
	b.round(20 * time.Millisecond)
	b.round(6 * time.Second)
	if len(b.exchanges) != 1 || b.exchanges[0].QName != "kept.example." || b.exchanges[0].LostEvents != 0 {
		t.Errorf("exchanges: %+v", b.exchanges)
	}
	b.pipeline.publish()
	if c := b.pipeline.Counters(); c.Discarded != 1 || c.OpenExchanges != 0 {
		t.Errorf("counters: %+v", c)
	}
}

// At the end everything that is open is passed on, after word that it is the
// last.
func TestStop(t *testing.T) {
	b := newBench(t)
	b.lookup("last.example.", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.pipeline.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(b.exchanges) != 1 || len(b.traces) != 1 || b.last != 1 {
		t.Errorf("%d exchanges, %d traces, reported %d times", len(b.exchanges), len(b.traces), b.last)
	}
}

// silent is a record socket that nobody writes to.
type silent chan receive.Record

// Records implements Receiver.
func (s silent) Records() <-chan receive.Record { return s }

// Shows implements Receiver.
func (silent) Shows(int, string) {}

// Stats implements Receiver.
func (silent) Stats() receive.Stats { return receive.Stats{} }

// Close implements Receiver.
func (s silent) Close() error { close(s); return nil }

// A tracer that got no processor time for longer than a query may wait: what it
// passes on as unanswered says that events were lost meanwhile.
func TestLossesOfAStarvedTracer(t *testing.T) {
	b := newBench(t)
	b.lookup("open.example.", 1)
	b.source.packets = b.source.packets[:2] // the responses were lost
	first := b.source.now
	b.source.losses = []capture.Loss{{Kind: capture.RX, Events: 2, First: first, Last: first + int64(9*time.Second)}}
	b.round(10 * time.Second)
	if len(b.exchanges) != 0 {
		t.Errorf("passed on before its losses were known: %+v", b.exchanges[0])
	}
	// Losses of later times hold it up no longer.
	b.source.losses = []capture.Loss{{Kind: capture.RX, Events: 7, First: b.source.now, Last: b.source.now + int64(time.Millisecond)}}
	b.round(20 * time.Millisecond)
	if len(b.exchanges) != 1 || b.exchanges[0].LostEvents != 2 || b.exchanges[0].Outcome != trace.OutcomeUnanswered {
		t.Fatalf("%d exchanges: %+v", len(b.exchanges), b.exchanges)
	}
	// What is found is in doubt, and is not counted.
	b.round(30 * time.Second)
	if len(b.traces) != 1 || len(b.traces[0].Diagnosis) != 1 || !b.traces[0].Diagnosis[0].InDoubt {
		t.Fatalf("%d traces: %+v", len(b.traces), b.traces)
	}
	b.pipeline.publish()
	if found := b.pipeline.Counters().Findings; len(found) != 0 {
		t.Errorf("counted: %v", found)
	}
}
