package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/tracer/api"
)

// readyWithin bounds a probe's question.
const readyWithin = 4 * time.Second

// staleAfter is how old the counters of a tracer that works may be: it renews them
// five times a second, unless the node has no time for it at all.
const staleAfter = 15 * time.Second

// checkReady asks the tracer that runs whether it does its work.
func checkReady(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := api.NewClient(path).Ready(ctx); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return nil
}

// health says why a tracer whose counters are of a time does not do its work.
func health(counters, now time.Time) error {
	if age := now.Sub(counters); age > staleAfter {
		return fmt.Errorf("no packets were read for %s", age.Round(time.Second))
	}
	return nil
}
