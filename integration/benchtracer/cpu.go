package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const cpuTurn = 3 * time.Second

// cpuTurns are what is measured in a round.
var cpuTurns = []struct {
	variant string
	rate    int // lookups a second
	cpu     figures.Goal
	lost    figures.Goal
	memory  figures.Goal
}{
	{dnstraceRun, 1_000, figures.AtMost(15), figures.Goal{}, figures.Goal{}},
	{dnstraceRun, 5_000, figures.AtMost(15), figures.Never(), figures.Goal{}},
	{dnstraceRun, 10_000, figures.AtMost(15), figures.Never(), figures.AtMost(64)},
	{dnstraceRun, 20_000, figures.Goal{}, figures.Never(), figures.Goal{}},
	{variant: dnstraceLean, rate: 5_000},
	{variant: dnstraceLean, rate: 10_000},
	{variant: dnstraceLean, rate: 20_000},
	{variant: dnstraceKernel, rate: 5_000},
	{variant: dnstraceKernel, rate: 10_000},
	{variant: dnstraceKernel, rate: 20_000},
	{variant: tcpdump, rate: 1_000},
	{variant: tcpdump, rate: 5_000},
	{variant: tcpdump, rate: 10_000},
	{variant: tcpdump, rate: 20_000},
	{variant: packetSockets, rate: 1_000},
	{variant: packetSockets, rate: 5_000},
	{variant: packetSockets, rate: 10_000},
	{variant: packetSockets, rate: 20_000},
}

// oursOnly is how often a lookup's two packets are seen on their way, and some more for
// what is tried again. The tracer sees the packets of everybody: above this, others on
// the machine asked, too, and all that the tracer took is of their lookups as well.
const oursOnly = 10

// measureCPU asks at steady rates and looks at the observers' processes.
func measureCPU(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	var all figures.Figures
	var order []string
	for n := range s.all() {
		for i := range cpuTurns {
			turn := cpuTurns[(i+n)%len(cpuTurns)]
			u, err := r.cpuTurn(ctx, turn.variant, turn.rate)
			if err != nil {
				return nil, fmt.Errorf("%s at %d lookups/s: %w", turn.variant, turn.rate, err)
			}
			variant := fmt.Sprintf("%s, %d/s", turn.variant, turn.rate)
			all.Add("lookups a second", variant, "lookups/s", u.rate, figures.Goal{})
			all.Add("answered lookups", variant, "÷ sent", u.answered, everyAnswer(turn.variant))
			all.Add("CPU a lookup", variant, "µs", u.cpu, turn.cpu)
			all.Add("lost packets", variant, "packets", u.tally.lost, turn.lost)
			if isTracer(turn.variant) {
				all.Add("packets of lookups left out whole", variant, "packets", u.tally.shed, turn.lost)
			}
			ours := figures.Goal{}
			if isTracer(turn.variant) {
				ours = figures.AtMost(oursOnly)
			}
			all.Add("seen packets", variant, "a lookup", u.tally.seen/u.lookups, ours)
			all.Add("memory, at most", variant, "MiB", u.peak, turn.memory)
			if isTracer(turn.variant) {
				all.Add("memory of its own, at the end", variant, "MiB", u.own, figures.Goal{})
				all.Add("traces", variant, "a lookup", u.tally.traces/u.lookups, figures.Goal{})
				all.Add("written", variant, "KiB a lookup", u.written, figures.Goal{})
			}
		}
	}
	for _, turn := range cpuTurns {
		order = append(order, fmt.Sprintf("%s, %d/s", turn.variant, turn.rate))
	}
	return all.Sorted(order), nil
}

// usage is what an observer took in a turn.
type usage struct {
	lookups, rate float64
	answered      float64 // ÷ lookups
	cpu           float64 // µs a lookup
	peak, own     float64 // MiB
	written       float64 // KiB a lookup
	tally         tally
}

func (r *rig) cpuTurn(ctx context.Context, variant string, rate int) (u usage, err error) {
	o, err := r.observe(variant)
	if err != nil {
		return u, err
	}
	if err := o.use(ctx, echo, rate, &u); err != nil {
		return u, o.abandon(err)
	}
	u.tally, err = o.end(ctx)
	return u, err
}

// use asks a server at a rate, until the observer has worked off all, and notes what it took.
func (o *observer) use(ctx context.Context, s server, rate int, u *usage) error {
	before, err := o.cpu()
	if err != nil {
		return err
	}
	res, err := o.rig.openLoop(ctx, s, rate, cpuTurn)
	if err != nil {
		return err
	}
	if err := o.drained(ctx, res.sent); err != nil {
		return err
	}
	after, err := o.cpu()
	if err != nil {
		return err
	}
	held, err := o.memory()
	if err != nil {
		return err
	}
	if isTracer(o.name) {
		records, err := os.Stat(o.rig.RecordFile())
		if err != nil {
			return err
		}
		u.written = float64(records.Size()) / 1024 / float64(res.sent)
	}
	const mebi = 1 << 20
	u.lookups, u.rate = float64(res.sent), float64(res.sent)/res.elapsed.Seconds()
	u.answered = res.answered()
	u.cpu = micros(after-before) / u.lookups
	u.peak, u.own = float64(held.peak)/mebi, float64(held.own)/mebi
	return nil
}
