package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/figures"
)

// changeRates are lookups a second.
var changeRates = []int{1_000, 5_000, 10_000}

// The builds that are compared.
const (
	thisBuild    = "this build"
	anotherBuild = "the other"
)

// changeParts are measured of two builds of `dnstrace run`, turn by turn: what a change
// costs, on a machine that does other things as well.
var changeParts = []part{
	{"programs", "Two builds: time in the eBPF programs", 6, inTurns((*change).programs)},
	{"throughput", "Two builds: throughput of DNS in a closed loop", 10, inTurns((*change).throughput)},
	{"cpu", "Two builds: what they take at a steady rate", 30, inTurns(func(c *change, ctx context.Context, n int) error { return c.cpu(ctx, n, echo) })},
	{"records", "Two builds: what they take where CoreDNS sends records", 30, inTurns(func(c *change, ctx context.Context, n int) error { return c.cpu(ctx, n, recorded) })},
}

// inTurns measures a round of both builds as often as there is time for.
func inTurns(round func(c *change, ctx context.Context, n int) error) func(context.Context, *rig, schedule) ([]figures.Figure, error) {
	return func(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
		c := change{rig: r, paths: map[string]string{thisBuild: r.dnstrace, anotherBuild: r.against}}
		for n := range s.all() {
			if err := round(&c, ctx, n); err != nil {
				return nil, err
			}
		}
		return c.all.Sorted(nil), nil
	}
}

type change struct {
	*rig
	paths map[string]string
	all   figures.Figures
}

// builds are in another order each round.
func builds(n int) []string {
	if n%2 == 0 {
		return []string{anotherBuild, thisBuild}
	}
	return []string{thisBuild, anotherBuild}
}

// add notes a figure of both builds, and their ratio.
func (c *change) add(name, unit string, of func(build string) float64) {
	c.all.Add(name, thisBuild, unit, of(thisBuild), figures.Goal{})
	c.all.Add(name, anotherBuild, unit, of(anotherBuild), figures.Goal{})
	if of(anotherBuild) > 0 {
		c.all.Add(name, "ratio", "", of(thisBuild)/of(anotherBuild), figures.Goal{})
	}
}

func (c *change) observe(build string) (*observer, error) {
	o := &observer{rig: c.rig, name: dnstraceRun}
	if err := o.startTracerAt(c.paths[build], "--record", "trace"); err != nil {
		return nil, errors.Join(err, o.stop())
	}
	return o, nil
}

// cpu asks a server at steady rates.
func (c *change) cpu(ctx context.Context, n int, s server) error {
	for _, rate := range changeRates {
		used := map[string]usage{}
		for _, build := range builds(n) {
			o, err := c.observe(build)
			if err != nil {
				return err
			}
			var u usage
			if err := o.use(ctx, s, rate, &u); err != nil {
				return o.abandon(err)
			}
			if u.tally, err = o.end(ctx); err != nil {
				return err
			}
			used[build] = u
		}
		at := fmt.Sprintf(", %d/s", rate)
		c.add("CPU a lookup"+at, "µs", func(b string) float64 { return used[b].cpu })
		c.add("memory, at most"+at, "MiB", func(b string) float64 { return used[b].peak })
		c.add("memory of its own, at the end"+at, "MiB", func(b string) float64 { return used[b].own })
		c.add("written"+at, "KiB a lookup", func(b string) float64 { return used[b].written })
		c.add("events"+at, "a lookup", func(b string) float64 { return used[b].tally.seen / used[b].lookups })
		c.add("traces"+at, "a lookup", func(b string) float64 { return used[b].tally.traces / used[b].lookups })
		c.add("lost or left out"+at, "events", func(b string) float64 { return used[b].tally.lost + used[b].tally.shed })
	}
	return nil
}

// throughput asks in a closed loop.
func (c *change) throughput(ctx context.Context, n int) error {
	for _, l := range loops {
		rates := map[string]float64{}
		for _, build := range builds(n) {
			o, err := c.observe(build)
			if err != nil {
				return err
			}
			took, err := c.closedLoop(ctx, l.server, l.queries)
			if err != nil {
				return o.abandon(err)
			}
			if _, err := o.end(ctx); err != nil {
				return err
			}
			rates[build] = float64(l.queries) / took.Seconds()
		}
		c.add("throughput, "+l.server.name, "lookups/s", func(b string) float64 { return rates[b] })
	}
	return nil
}

// programs compares what a run of each program takes.
func (c *change) programs(ctx context.Context, n int) (err error) {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("count the run time of BPF programs: %w", err)
	}
	defer func() { err = errors.Join(err, stats.Close()) }()
	dns, other := map[string]map[string]runs{}, map[string]map[string]runs{}
	for _, build := range builds(n) {
		if dns[build], other[build], err = c.runsOf(ctx, build); err != nil {
			return err
		}
	}
	c.addRuns("a DNS packet", dns)
	c.addRuns("another packet", other)
	return nil
}

func (c *change) addRuns(packet string, all map[string]map[string]runs) {
	for name := range all[thisBuild] {
		for _, build := range []string{thisBuild, anotherBuild} {
			if run := all[build][name]; run.count >= fewRuns {
				c.all.Add(packet+" in "+name, build, "ns a run", run.mean(), figures.Goal{})
				c.all.Add(packet+" in "+name, build+", runs", "a lookup", float64(run.count)/programQueries, figures.Goal{})
			}
		}
	}
	c.add(packet+", all programs", "µs a lookup", func(build string) float64 {
		var sum time.Duration
		for _, run := range all[build] {
			sum += run.time
		}
		return micros(sum) / programQueries
	})
}

// runsOf counts the runs of a build's programs while DNS is asked, and something else.
func (c *change) runsOf(ctx context.Context, build string) (dns, other map[string]runs, err error) {
	o, err := c.observe(build)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	loaded, err := programsOf(o.processes[0].Pid())
	if err != nil {
		return nil, nil, err
	}
	defer loaded.close()
	if dns, err = during(loaded, func() error {
		_, err := c.closedLoop(ctx, echo, programQueries)
		return err
	}); err != nil {
		return nil, nil, err
	}
	other, err = during(loaded, func() error {
		_, err := c.closedLoopTo(ctx, c.otherAddress(), echo, programQueries)
		return err
	})
	return dns, other, err
}

// during counts the runs of programs under a load.
func during(loaded programs, load func() error) (map[string]runs, error) {
	before, err := readRuns(loaded)
	if err != nil {
		return nil, err
	}
	if err := load(); err != nil {
		return nil, err
	}
	after, err := readRuns(loaded)
	if err != nil {
		return nil, err
	}
	for name := range after {
		after[name] = after[name].since(before[name])
	}
	return after, nil
}
