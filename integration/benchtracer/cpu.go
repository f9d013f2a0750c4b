package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	cpuTurn  = 3 * time.Second
	idleTurn = 2 * time.Second
)

// cpuTurns are what is measured in a round. Only dnstrace is asked more than one rate.
var cpuTurns = []struct {
	variant string
	rate    int // lookups a second
	cpu     goal
	lost    goal
	memory  goal
}{
	{dnstraceRun, 1_000, atMost(15), goal{}, goal{}},
	{dnstraceRun, 5_000, atMost(15), never(), goal{}},
	{dnstraceRun, 10_000, atMost(15), never(), atMost(64)},
	{dnstraceRun, 20_000, goal{}, never(), goal{}},
	{tcpdump, 5_000, goal{}, goal{}, goal{}},
	{packetSockets, 5_000, goal{}, goal{}, goal{}},
}

// measureCPU asks at steady rates and looks at the observers' processes.
func measureCPU(ctx context.Context, r *rig, s schedule) ([]figure, error) {
	var all figures
	var order []string
	for n := range s.all() {
		for i := range cpuTurns {
			turn := cpuTurns[(i+n)%len(cpuTurns)]
			u, err := r.cpuTurn(ctx, turn.variant, turn.rate)
			if err != nil {
				return nil, fmt.Errorf("%s at %d lookups/s: %w", turn.variant, turn.rate, err)
			}
			variant := fmt.Sprintf("%s, %d/s", turn.variant, turn.rate)
			all.add("lookups a second", variant, "lookups/s", u.rate, goal{})
			all.add("CPU a lookup", variant, "µs", u.cpu, turn.cpu)
			all.add("lost packets", variant, "packets", u.tally.lost, turn.lost)
			if turn.variant == dnstraceRun {
				all.add("packets of lookups left out whole", variant, "packets", u.tally.shed, turn.lost)
			}
			all.add("seen packets", variant, "a lookup", u.tally.seen/u.lookups, goal{})
			all.add("memory, at most", variant, "MiB", u.peak, turn.memory)
			if turn.variant == dnstraceRun {
				all.add("memory of its own, at the end", variant, "MiB", u.own, goal{})
				all.add("traces", variant, "a lookup", u.tally.traces/u.lookups, goal{})
				all.add("written", variant, "KiB a lookup", u.written, goal{})
			}
		}
		startup, idle, err := r.idle(ctx)
		if err != nil {
			return nil, err
		}
		all.add("start-up, until ready", dnstraceRun, "ms", startup, goal{})
		all.add("CPU without lookups", dnstraceRun, "ms a second", idle, goal{})
	}
	for _, turn := range cpuTurns {
		order = append(order, fmt.Sprintf("%s, %d/s", turn.variant, turn.rate))
	}
	return all.sorted(order), nil
}

// usage is what an observer took in a turn.
type usage struct {
	lookups, rate float64
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
	if err := o.use(ctx, rate, &u); err != nil {
		return u, o.abandon(err)
	}
	u.tally, err = o.end(ctx)
	return u, err
}

// use asks at a rate, until the observer has worked off all, and notes what it took.
func (o *observer) use(ctx context.Context, rate int, u *usage) error {
	before, err := o.cpu()
	if err != nil {
		return err
	}
	res, err := o.rig.openLoop(ctx, echo, rate, cpuTurn)
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
	if o.name == dnstraceRun {
		records, err := os.Stat(o.rig.RecordFile())
		if err != nil {
			return err
		}
		u.written = float64(records.Size()) / 1024 / float64(res.sent)
	}
	const mebi = 1 << 20
	u.lookups, u.rate = float64(res.sent), float64(res.sent)/res.elapsed.Seconds()
	u.cpu = micros(after-before) / u.lookups
	u.peak, u.own = float64(held.peak)/mebi, float64(held.own)/mebi
	return nil
}

// idle returns how long dnstrace takes to be ready, in ms, to the ten ms with which
// the lab looks, and the CPU time that it takes when nothing happens, in ms a second.
func (r *rig) idle(ctx context.Context) (startup, cpu float64, err error) {
	o, err := r.observe(dnstraceRun)
	if err != nil {
		return 0, 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, 0, o.abandon(err)
	}
	before, err := o.cpu()
	if err != nil {
		return 0, 0, o.abandon(err)
	}
	if err := pause(ctx, idleTurn); err != nil {
		return 0, 0, o.abandon(err)
	}
	after, err := o.cpu()
	if err != nil {
		return 0, 0, o.abandon(err)
	}
	return micros(o.startup) / 1e3, micros(after-before) / 1e3 / idleTurn.Seconds(), o.stop()
}
