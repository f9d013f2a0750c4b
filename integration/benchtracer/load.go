package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const (
	// clients is how many sockets ask: enough to keep a server of two processors at work.
	clients = 4
	// answerTimeout is how long an answer may take in a closed loop.
	answerTimeout = 5 * time.Second
	// lastAnswers is how long an open loop waits for answers after its last query.
	lastAnswers = time.Second
)

// closedLoop asks a server behind the Service n questions from several clients,
// each of which waits for its answer, and returns how long that took.
func (r *rig) closedLoop(ctx context.Context, s server, n int) (time.Duration, error) {
	if err := r.serve(s); err != nil {
		return 0, err
	}
	return r.closedLoopTo(ctx, service, s, n)
}

func (r *rig) closedLoopTo(ctx context.Context, to netip.AddrPort, of server, n int) (time.Duration, error) {
	sockets, err := r.dialAll(to, of, clients)
	if err != nil {
		return 0, err
	}
	defer closeAll(sockets)
	start := time.Now()
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i, s := range sockets {
		wg.Go(func() {
			for id := 0; id < n/clients && errs[i] == nil; id++ {
				errs[i] = s.exchange(ctx, uint16(id))
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}

// exchange asks and waits for the answer.
func (s *socket) exchange(ctx context.Context, id uint16) error {
	if err := s.send(id); err != nil {
		return err
	}
	for start := time.Now(); ; {
		got, err := s.receive()
		switch {
		case err == nil && got == id:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, errNothing):
			return err
		case time.Since(start) > answerTimeout:
			return fmt.Errorf("query %d: no answer after %v", id, answerTimeout)
		}
	}
}

// openResult is what an open loop saw.
type openResult struct {
	sent    int
	elapsed time.Duration
	// latencies are those of the queries that were answered, from before the system
	// call that sends to after the one that receives.
	latencies []time.Duration
}

// answered is the share of the queries that were.
func (r openResult) answered() float64 { return float64(len(r.latencies)) / float64(r.sent) }

// everyAnswer is the goal of that share: nobody may lose an answer because dnstrace
// watches, not in one round.
func everyAnswer(variant string) figures.Goal {
	if !isTracer(variant) {
		return figures.Goal{}
	}
	return figures.Always(1)
}

// openLoop asks a server behind the Service at a steady rate, whether it answers
// or not. It ends after twice the time if the machine cannot keep up.
func (r *rig) openLoop(ctx context.Context, s server, rate int, d time.Duration) (openResult, error) {
	if err := r.serve(s); err != nil {
		return openResult{}, err
	}
	sockets, err := r.dialAll(service, s, clients)
	if err != nil {
		return openResult{}, err
	}
	defer closeAll(sockets)
	flows, errs := make([]flow, clients), make([]error, 2*clients)
	start := time.Now()
	var wg sync.WaitGroup
	for i, s := range sockets {
		f := &flows[i]
		f.socket, f.step = s, time.Second*clients/time.Duration(rate)
		f.first, f.end = start.Add(f.step*time.Duration(i)/clients), start.Add(2*d)
		wg.Go(func() { errs[2*i] = f.sendAll(ctx, int(d/f.step)) })
		wg.Go(func() { errs[2*i+1] = f.receiveAll(ctx) })
	}
	wg.Wait()
	var all openResult
	for i := range flows {
		all.sent += int(flows[i].sent.Load())
		all.elapsed = max(all.elapsed, flows[i].last.Sub(start))
		all.latencies = append(all.latencies, flows[i].latencies...)
	}
	return all, errors.Join(errs...)
}

// flow is one socket of an open loop.
type flow struct {
	socket     *socket
	step       time.Duration
	first, end time.Time
	last       time.Time // when the last query was sent
	sent       atomic.Int64
	done       atomic.Bool
	// sentAt is when the query of an id was sent, after first. Ids come round after
	// seconds, answers after microseconds.
	sentAt    [1 << 16]atomic.Int64
	latencies []time.Duration
}

// sendAll sends n queries, each at its time; those that are late at once.
func (f *flow) sendAll(ctx context.Context, n int) error {
	defer f.done.Store(true)
	// Timers of this thread are not to be put together with others, which is up to 50 µs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	for i := range n {
		for wait := time.Until(f.first.Add(time.Duration(i) * f.step)); wait > 0; wait = time.Until(f.first.Add(time.Duration(i) * f.step)) {
			ts := unix.NsecToTimespec(int64(wait))
			// A signal may end it early; then there is more to wait.
			_ = unix.Nanosleep(&ts, nil)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		if now.After(f.end) {
			break
		}
		f.sentAt[uint16(i)].Store(int64(now.Sub(f.first)))
		if err := f.socket.send(uint16(i)); err != nil {
			return err
		}
		f.sent.Add(1)
	}
	f.last = time.Now()
	return nil
}

// receiveAll takes the answers until all are there or none comes any more.
func (f *flow) receiveAll(ctx context.Context) error {
	for idle := time.Now(); ; {
		id, err := f.socket.receive()
		switch {
		case err == nil:
			idle = time.Now()
			f.latencies = append(f.latencies, idle.Sub(f.first)-time.Duration(f.sentAt[id].Load()))
		case !errors.Is(err, errNothing):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if f.done.Load() && (int64(len(f.latencies)) == f.sent.Load() || time.Since(idle) > lastAnswers) {
			return nil
		}
	}
}
