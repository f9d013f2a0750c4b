package main

import (
	"context"
	"fmt"

	"github.com/dnstrace/dnstrace/integration/figures"
)

// loops are the queries of a turn: about half a second of each.
var loops = []struct {
	server  server
	queries int
	goal    figures.Goal
}{
	{cached, 24_000, figures.AtLeast(0.97)},
	{echo, 48_000, figures.AtLeast(0.92)},
}

// measureThroughput compares how many lookups a second are answered.
func measureThroughput(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	var all figures.Figures
	for n := range s.all() {
		rates, tallies := make(map[string][]float64), make(map[string]tally)
		for i := range busyVariants {
			name := busyVariants[(i+n)%len(busyVariants)]
			rate, t, err := r.throughputTurn(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			rates[name], tallies[name] = rate, t
		}
		for i, l := range loops {
			for _, name := range busyVariants {
				if name == off {
					all.Add(l.server.name, off, "lookups/s", rates[off][i], figures.Goal{})
					continue
				}
				g := figures.Goal{}
				if name == dnstraceRun {
					g = l.goal
				}
				all.Add(l.server.name, name, "÷ off", rates[name][i]/rates[off][i], g)
			}
		}
		for _, name := range busyVariants[1:] {
			all.Add("packets that the observer lost", name, "%", tallies[name].lostShare(), figures.Goal{})
			if isTracer(name) {
				all.Add("packets of lookups left out whole", name, "%", tallies[name].shedShare(), figures.Goal{})
			}
		}
	}
	return all.Sorted(busyVariants), nil
}

// throughputTurn asks each server with an observer on, and returns the lookups a
// second of each.
func (r *rig) throughputTurn(ctx context.Context, name string) (rates []float64, t tally, err error) {
	o, err := r.observe(name)
	if err != nil {
		return nil, t, err
	}
	for _, l := range loops {
		took, err := r.closedLoop(ctx, l.server, l.queries)
		if err != nil {
			return nil, t, o.abandon(err)
		}
		rates = append(rates, float64(l.queries)/took.Seconds())
	}
	if err := pause(ctx, settle); err != nil {
		return nil, t, o.abandon(err)
	}
	t, err = o.end(ctx)
	return rates, t, err
}
