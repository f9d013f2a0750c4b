package lab

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Bulk is many lookups at a steady rate, each from a socket of its own.
type Bulk struct {
	Count int     // how many lookups
	Rate  float64 // how many start in a second
	// Query makes the i-th lookup, from 0; nil asks for the A records of
	// BulkName(i) at ServiceV4 over UDP.
	Query func(i int) Query
	// InFlight bounds the lookups that wait for their answers; when that many
	// do, the next is late. The default of 100 queries fits in a socket's
	// receive buffer of the usual size even when a busy machine stalls.
	InFlight int
}

// BulkName is the unique name of a Bulk's i-th lookup.
func BulkName(i int) string { return fmt.Sprintf("n%06d.bulk.test.", i) }

// Bulk makes many lookups and returns a Result for each, in order of i. If ctx
// ends first, the results of lookups that were not begun have no Sent time and
// the context's error.
func (c *Client) Bulk(ctx context.Context, b Bulk) []Result {
	if b.Query == nil {
		b.Query = func(i int) Query { return Query{Name: BulkName(i)} }
	}
	if b.InFlight == 0 {
		b.InFlight = 100
	}
	results := make([]Result, b.Count)
	room := make(chan struct{}, b.InFlight)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range results {
		due := start.Add(time.Duration(float64(i) / b.Rate * float64(time.Second)))
		if !waitUntil(ctx, due) {
			results[i].Err = ctx.Err()
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			results[i], _ = c.Exchange(ctx, b.Query(i))
			<-room
		})
	}
	wg.Wait()
	return results
}

// waitUntil tells whether the time came before the context's end.
func waitUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
