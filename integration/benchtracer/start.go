package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const idleTurn = 2 * time.Second

// measureStart starts each observer, and looks at what it takes while nothing happens.
func measureStart(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	var all figures.Figures
	for n := range s.all() {
		for i := range variants[1:] {
			name := variants[1:][(i+n)%len(variants[1:])]
			if err := r.startTurn(ctx, name, &all); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return all.Sorted(variants), nil
}

// startTurn notes how long an observer takes to be ready, to the ten ms with which the
// lab looks, and the CPU time that this and the rest after it take.
func (r *rig) startTurn(ctx context.Context, name string, all *figures.Figures) error {
	o, err := r.observe(name)
	if err != nil {
		return err
	}
	all.Add("until it is ready", name, "ms", micros(o.startup)/1e3, figures.Goal{})
	if err := pause(ctx, settle); err != nil {
		return o.abandon(err)
	}
	before, err := o.cpu()
	if err != nil {
		return o.abandon(err)
	}
	all.Add("CPU time until then", name, "ms", micros(before)/1e3, figures.Goal{})
	if err := pause(ctx, idleTurn); err != nil {
		return o.abandon(err)
	}
	after, err := o.cpu()
	if err != nil {
		return o.abandon(err)
	}
	held, err := o.memory()
	if err != nil {
		return o.abandon(err)
	}
	all.Add("CPU time without lookups", name, "ms a second", micros(after-before)/1e3/idleTurn.Seconds(), figures.Goal{})
	all.Add("memory of its own then", name, "MiB", float64(held.own)/(1<<20), figures.Goal{})
	return o.stop()
}
