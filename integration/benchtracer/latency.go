package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const (
	latencyRate = 5000 // lookups a second
	latencyTurn = time.Second
)

// measureLatency compares how long lookups take on a machine that is not at its limit.
func measureLatency(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	var all figures.Figures
	for n := range s.all() {
		turns := make(map[string]latency)
		for i := range variants {
			name := variants[(i+n)%len(variants)]
			l, err := r.latencyTurn(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			turns[name] = l
		}
		base := turns[off]
		for _, name := range variants {
			all.Add("answered lookups", name, "÷ sent", turns[name].answered, everyAnswer(name))
			if name == off {
				all.Add("p50", off, "µs", base.p50, figures.Goal{})
				all.Add("mean", off, "µs", base.mean, figures.Goal{})
				continue
			}
			g := figures.Goal{}
			if name == dnstraceRun {
				g = figures.AtMost(3)
			}
			all.Add("p50", name, "µs more than off", turns[name].p50-base.p50, g)
			all.Add("mean", name, "µs more than off", turns[name].mean-base.mean, g)
		}
	}
	return all.Sorted(variants), nil
}

// latency is that of a turn, in µs, and the share of lookups that were answered.
type latency struct{ p50, mean, answered float64 }

func (r *rig) latencyTurn(ctx context.Context, name string) (latency, error) {
	o, err := r.observe(name)
	if err != nil {
		return latency{}, err
	}
	res, err := r.openLoop(ctx, echo, latencyRate, latencyTurn)
	if err == nil && len(res.latencies) == 0 {
		err = fmt.Errorf("none of %d lookups was answered", res.sent)
	}
	if err != nil {
		return latency{}, o.abandon(err)
	}
	slices.Sort(res.latencies)
	var sum time.Duration
	for _, l := range res.latencies {
		sum += l
	}
	n := len(res.latencies)
	l := latency{p50: micros(res.latencies[n/2]), mean: micros(sum) / float64(n), answered: res.answered()}
	return l, o.stop()
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
