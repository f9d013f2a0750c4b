package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// counts of what became of lookups.
type counts struct{ asked, answered, retried, failed atomic.Int64 }

// attempts is how often a resolver sends a query, glibc's default.
const attempts = 2

// load asks a server for rate names a second until ctx ends. A lookup that gets no
// answer, or SERVFAIL, is retried; one that does so again has failed.
func load(ctx context.Context, rate int, server, name string) error {
	const workers = 256
	var c counts
	var group sync.WaitGroup
	due := make(chan int64)
	for range workers {
		client, err := dns.Dial("udp", server)
		if err != nil {
			return err
		}
		group.Go(func() {
			defer client.Close()
			for n := range due {
				c.lookup(client, fmt.Sprintf("n%d.%s", n, name))
			}
		})
	}
	tick(ctx, rate, due)
	close(due)
	group.Wait()
	fmt.Printf("asked %d answered %d retried %d failed %d\n", c.asked.Load(), c.answered.Load(), c.retried.Load(), c.failed.Load())
	return nil
}

// tick sends rate numbers a second, as many at once as are due.
func tick(ctx context.Context, rate int, due chan<- int64) {
	start, sent := time.Now(), int64(0)
	timer := time.NewTicker(2 * time.Millisecond)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			for want := int64(now.Sub(start).Seconds() * float64(rate)); sent < want; sent++ {
				select {
				case due <- sent:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// lookup asks for a name over the worker's socket.
func (c *counts) lookup(conn *dns.Conn, name string) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c.asked.Add(1)
	for attempt := range attempts {
		if attempt > 0 {
			c.retried.Add(1)
		}
		err := exchange(conn, m)
		if err == nil {
			c.answered.Add(1)
			return
		}
		fmt.Println(time.Now().UTC().Format(time.RFC3339Nano), name, err)
	}
	c.failed.Add(1)
}

var errServfail = errors.New("SERVFAIL")

func exchange(conn *dns.Conn, m *dns.Msg) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := conn.WriteMsg(m); err != nil {
		return err
	}
	for {
		r, err := conn.ReadMsg()
		switch {
		case err != nil:
			return err
		case r.Id != m.Id:
			continue // of a lookup that was given up
		case r.Rcode == dns.RcodeServerFailure:
			return errServfail
		}
		return nil
	}
}
