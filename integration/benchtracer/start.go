package main

import (
	"context"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const idleTurn = 2 * time.Second

// measureStart starts the tracer, and looks at what it takes while nothing happens.
func measureStart(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	var all figures.Figures
	for range s.all() {
		if err := r.startRound(ctx, &all); err != nil {
			return nil, err
		}
	}
	return all.Sorted([]string{dnstraceRun}), nil
}

// startRound notes how long dnstrace takes to be ready, to the ten ms with which the
// lab looks, and the CPU time that this and the rest after it take.
func (r *rig) startRound(ctx context.Context, all *figures.Figures) error {
	o, err := r.observe(dnstraceRun)
	if err != nil {
		return err
	}
	all.Add("until it is ready", dnstraceRun, "ms", micros(o.startup)/1e3, figures.Goal{})
	if err := pause(ctx, settle); err != nil {
		return o.abandon(err)
	}
	before, err := o.cpu()
	if err != nil {
		return o.abandon(err)
	}
	all.Add("CPU time until then", dnstraceRun, "ms", micros(before)/1e3, figures.Goal{})
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
	all.Add("CPU time without lookups", dnstraceRun, "ms a second", micros(after-before)/1e3/idleTurn.Seconds(), figures.Goal{})
	all.Add("memory of its own then", dnstraceRun, "MiB", float64(held.own)/(1<<20), figures.Goal{})
	return o.stop()
}
