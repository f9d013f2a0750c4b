package lab

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bulk is many lookups at a steady rate, each from a socket of its own unless KeepSockets
// says otherwise.
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
	// KeepSockets asks from sockets that stay open, each for the next lookup when it
	// is done with one, and not from a new one for each, which takes the client most
	// of its time. All queries must go to one server over UDP.
	KeepSockets bool
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
	exchange := func(i int) { results[i], _ = c.Exchange(ctx, b.Query(i)) }
	if b.KeepSockets {
		sockets := &keptSockets{client: c}
		defer sockets.close()
		exchange = func(i int) { results[i] = sockets.exchange(ctx, b.Query(i)) }
	}
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
			exchange(i)
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

// keptSockets are those that nobody uses at the moment.
type keptSockets struct {
	client *Client
	mu     sync.Mutex
	idle   []net.Conn
}

// exchange makes one lookup. A socket over which one had no answer is not used again.
func (k *keptSockets) exchange(ctx context.Context, q Query) Result {
	v := &conversation{socket: q.withDefaults()}
	err := v.add(q)
	var conn net.Conn
	if err == nil {
		conn, err = k.take(ctx, v.socket)
	}
	if err != nil {
		v.end(err)
		return v.results[0]
	}
	v.over(ctx, conn)
	if v.results[0].Err != nil {
		conn.Close()
	} else {
		k.mu.Lock()
		k.idle = append(k.idle, conn)
		k.mu.Unlock()
	}
	return v.results[0]
}

func (k *keptSockets) take(ctx context.Context, q Query) (net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last := len(k.idle) - 1; last >= 0 {
		conn := k.idle[last]
		k.idle = k.idle[:last]
		return conn, nil
	}
	return k.client.dial(ctx, q)
}

func (k *keptSockets) close() {
	for _, conn := range k.idle {
		conn.Close()
	}
}
