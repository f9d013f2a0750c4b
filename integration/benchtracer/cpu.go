package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const cpuTurn = 3 * time.Second

// steady is an observer that is measured while a server is asked at a rate, in lookups a
// second. Goals are for CPU time a lookup in µs, lost packets, memory in MiB, and what is
// written a lookup in KiB.
type steady struct {
	variant                    string
	rate                       int
	cpu, lost, memory, written figures.Goal
}

// aloneTurns ask the echo server: there are no records of a plugin.
var aloneTurns = []steady{
	{variant: dnstraceRun, rate: 1_000, cpu: figures.AtMost(15)},
	{variant: dnstraceRun, rate: 5_000, cpu: figures.AtMost(15), lost: figures.Never()},
	{variant: dnstraceRun, rate: 10_000, cpu: figures.AtMost(15), lost: figures.Never(), memory: figures.AtMost(64)},
	{variant: dnstraceRun, rate: 20_000, lost: figures.Never()},
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

// recordedTurns ask CoreDNS with the plugin, which answers from its cache.
var recordedTurns = []steady{
	{variant: dnstraceRun, rate: 5_000, cpu: figures.AtMost(15), lost: figures.Never(), written: figures.AtMost(hitKiB)},
	{variant: dnstraceRun, rate: 10_000, cpu: figures.AtMost(15), lost: figures.Never(), memory: figures.AtMost(64), written: figures.AtMost(hitKiB)},
	{variant: dnstraceLean, rate: 5_000, cpu: figures.AtMost(8)},
	{variant: dnstraceLean, rate: 10_000, cpu: figures.AtMost(8)},
	{variant: dnstraceKernel, rate: 5_000, cpu: figures.AtMost(1.2)},
	{variant: dnstraceKernel, rate: 10_000, cpu: figures.AtMost(1.2)},
	{variant: tcpdump, rate: 5_000},
	{variant: tcpdump, rate: 10_000},
	{variant: packetSockets, rate: 5_000},
	{variant: packetSockets, rate: 10_000},
}

// hitKiB is what a healthy lookup that the cache answers may take: 1.2 kB.
const hitKiB = 1.2 * 1000 / 1024

// oursOnly is how often a lookup's two packets are seen on their way and at sockets, and some
// more for what is tried again. The tracer sees the packets of everybody: above this, others on
// the machine asked, too, and all that the tracer took is of their lookups as well.
const oursOnly = 14

// measureSteady asks a server at steady rates and looks at the observers' processes.
func measureSteady(of server, turns []steady) func(context.Context, *rig, schedule) ([]figures.Figure, error) {
	return func(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
		var all figures.Figures
		var order []string
		for n := range s.all() {
			for i := range turns {
				turn := &turns[(i+n)%len(turns)]
				u, err := r.steadyTurn(ctx, of, turn.variant, turn.rate)
				if err != nil {
					return nil, fmt.Errorf("%s at %d lookups/s: %w", turn.variant, turn.rate, err)
				}
				turn.add(&all, &u)
			}
		}
		for i := range turns {
			order = append(order, turns[i].name())
		}
		return all.Sorted(order), nil
	}
}

func (t *steady) name() string { return fmt.Sprintf("%s, %d/s", t.variant, t.rate) }

func (t *steady) add(all *figures.Figures, u *usage) {
	all.Add("lookups a second", t.name(), "lookups/s", u.rate, figures.Goal{})
	all.Add("answered lookups", t.name(), "÷ sent", u.answered, everyAnswer(t.variant))
	all.Add("CPU a lookup", t.name(), "µs", u.cpu, t.cpu)
	all.Add("lost packets", t.name(), "packets", u.tally.lost, t.lost)
	all.Add("memory, at most", t.name(), "MiB", u.peak, t.memory)
	if !isTracer(t.variant) {
		all.Add("seen packets", t.name(), "a lookup", u.tally.seen/u.lookups, figures.Goal{})
		return
	}
	all.Add("packets of lookups left out whole", t.name(), "packets", u.tally.shed, t.lost)
	all.Add("seen packets", t.name(), "a lookup", u.tally.seen/u.lookups, figures.AtMost(oursOnly))
	all.Add("memory of its own, at the end", t.name(), "MiB", u.own, figures.Goal{})
	all.Add("traces", t.name(), "a lookup", u.tally.traces/u.lookups, figures.Goal{})
	all.Add("written", t.name(), "KiB a lookup", u.written, t.written)
}

// kindRate is in lookups a second: CoreDNS forwards each that fails.
const kindRate = 2_000

// measureKinds compares what lookups of several kinds take the tracer, of a CoreDNS that sends
// records.
func measureKinds(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	kinds := []server{recorded, hot, failing}
	var all figures.Figures
	for n := range s.all() {
		used := map[string]usage{}
		for i := range kinds {
			kind := kinds[(i+n)%len(kinds)]
			u, err := r.steadyTurn(ctx, kind, dnstraceRun, kindRate)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind.name, err)
			}
			used[kind.name] = u
			all.Add("CPU a lookup", kind.name, "µs", u.cpu, figures.Goal{})
			all.Add("events", kind.name, "a lookup", u.tally.seen/u.lookups, figures.Goal{})
			all.Add("written", kind.name, "KiB a lookup", u.written, figures.Goal{})
			all.Add("lost or left out", kind.name, "packets", u.tally.lost+u.tally.shed, figures.Never())
		}
		for _, kind := range kinds[1:] {
			all.Add("CPU a lookup ÷ that of many names", kind.name, "", used[kind.name].cpu/used[recorded.name].cpu, figures.Goal{})
		}
	}
	return all.Sorted([]string{recorded.name, hot.name, failing.name}), nil
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

func (r *rig) steadyTurn(ctx context.Context, of server, variant string, rate int) (u usage, err error) {
	o, err := r.observe(variant)
	if err != nil {
		return u, err
	}
	if err := o.use(ctx, of, rate, &u); err != nil {
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
