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
type counts struct{ asked, answered, failed atomic.Int64 }

// load asks a server for rate names a second, each once, until ctx ends. A query
// that gets no answer, or SERVFAIL, has failed.
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
	fmt.Printf("asked %d answered %d failed %d\n", c.asked.Load(), c.answered.Load(), c.failed.Load())
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

// lookup asks for a name once over the worker's socket, as a resolver would without a
// retry.
func (c *counts) lookup(conn *dns.Conn, name string) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c.asked.Add(1)
	err := exchange(conn, m)
	if err != nil {
		c.failed.Add(1)
		fmt.Println(time.Now().UTC().Format(time.RFC3339Nano), name, err)
		return
	}
	c.answered.Add(1)
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
