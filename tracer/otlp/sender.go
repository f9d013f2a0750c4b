package otlp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// Pauses between tries grow to half a minute, so that many nodes do not keep a
// collector down; after five minutes a batch is given up for the next, as the
// collector's own exporters do.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
	maxTries   = 5 * time.Minute
)

// transport sends requests of one signal.
type transport interface {
	// send returns a *failure where it could not deliver.
	send(ctx context.Context, request, response proto.Message) error
	close() error
}

// failure is why a request was not delivered.
type failure struct {
	err   error
	retry bool          // it may work later
	after time.Duration // the receiver asks for this pause; 0: it does not
}

// Error implements error.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// sender delivers one signal from a goroutine of its own.
type sender[T any] struct {
	name      string
	queue     *queue[T]
	transport transport
	request   func([]T) proto.Message
	signal    signal
	report    func(string)
	first     time.Duration // the first pause
	ctx       context.Context
	giveUp    context.CancelFunc
	done      chan struct{}
	bounded   bool // the time until the end is
	written   atomic.Uint64
	dropped   atomic.Uint64

	// Of run, and when that is done of Close.
	why     string    // it does not work; empty: it does
	failing time.Time // since when
	late    uint64    // records dropped after Close
}

func newSender[T any](s signal, name string, t transport, report func(string), request func([]T) proto.Message) *sender[T] {
	n := &sender[T]{name: name, queue: newQueue[T](), transport: t, request: request, signal: s, report: report, first: firstPause, done: make(chan struct{})}
	n.ctx, n.giveUp = context.WithCancel(context.Background())
	return n
}

// put queues a record; it is lost, and counted, where there is no room.
func (s *sender[T]) put(size int, item func() T) {
	if !s.queue.put(size, item) {
		s.dropped.Add(1)
	}
}

func (s *sender[T]) run() {
	defer close(s.done)
	for {
		batch := s.queue.take()
		if len(batch) == 0 {
			return
		}
		s.deliver(batch)
	}
}

// deliver sends a batch, again and again if it has to.
func (s *sender[T]) deliver(batch []T) {
	request := s.request(batch)
	pauses := backoff.ExponentialBackOff{InitialInterval: s.first, RandomizationFactor: 0.5, Multiplier: 1.5, MaxInterval: maxPause}
	pauses.Reset()
	for end := time.Now().Add(maxTries); ; {
		response := s.signal.response()
		err := s.transport.send(s.ctx, request, response)
		if err == nil {
			s.delivered(uint64(len(batch)), response)
			return
		}
		s.failed(err)
		f := new(failure)
		again := errors.As(err, &f) && f.retry && time.Now().Before(end)
		if !again || !s.pause(max(pauses.NextBackOff(), f.after)) {
			s.drop(uint64(len(batch)))
			return
		}
	}
}

// pause waits; false: there is no time left.
func (s *sender[T]) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *sender[T]) delivered(records uint64, response proto.Message) {
	// It is unknown of which records rejected spans are: of that many records at most.
	refused, why := s.signal.rejected(response)
	lost := min(records, uint64(max(refused, 0)))
	s.written.Add(records - lost)
	if lost > 0 {
		s.failed(fmt.Errorf("the receiver rejected %d of them: %s", refused, why))
		s.drop(lost)
		return
	}
	if s.why != "" {
		s.report(fmt.Sprintf("output %s: delivers again after %s; %d records lost so far",
			s.name, time.Since(s.failing).Round(time.Second), s.dropped.Load()))
		s.why = ""
	}
}

// failed records why delivery fails, and reports it once, until it works again. An expired
// deadline is no reason.
func (s *sender[T]) failed(err error) {
	if s.ctx.Err() != nil {
		if s.why == "" {
			s.why = "the receiver did not take them in time"
		}
		return
	}
	why := oneline.Reason(err, maxFailure)
	if s.why == "" {
		s.failing = time.Now()
		s.report(fmt.Sprintf("output %s: %s; what cannot wait is dropped and counted in dnstrace_output_records_dropped_total", s.name, why))
	}
	s.why = why
}

// maxReason bounds a quoted reason: Loki's, which names the limit that was exceeded,
// takes 230 bytes. maxFailure bounds the whole message of a failure: of some the reason
// comes from a library with the receiver's text in it.
const (
	maxReason  = 300
	maxFailure = 3 * maxReason
)

func (s *sender[T]) drop(records uint64) {
	s.dropped.Add(records)
	if s.queue.isClosed() {
		s.late += records
	}
}

// Flush does nothing: batches go by size and age.
func (s *sender[T]) Flush() {}

// Last says that only the remaining records at the end are still to come. Write waits for
// room from now on. All waiting, that of Close included, takes no longer than patience in
// total.
func (s *sender[T]) Last(patience time.Duration) {
	s.bounded = true
	s.queue.waitForRoom()
	time.AfterFunc(patience, func() {
		s.queue.neverWait()
		s.giveUp()
	})
}

// closePatience bounds Close without a call of Last.
const closePatience = 5 * time.Second

// Close sends what is queued, drops what cannot be sent in time, reports that, and
// ends. That is no error: the caller is not to blame for a receiver that is gone.
func (s *sender[T]) Close() error {
	s.queue.close()
	if !s.bounded {
		defer time.AfterFunc(closePatience, s.giveUp).Stop()
	}
	<-s.done
	s.giveUp()
	if s.late > 0 {
		s.report(fmt.Sprintf("output %s: %d records were not delivered at the end: %s", s.name, s.late, s.why))
	}
	if err := s.transport.close(); err != nil {
		return fmt.Errorf("output %s: %w", s.name, err)
	}
	return nil
}

// Stats returns how many records were delivered and how many were lost.
func (s *sender[T]) Stats() (written, dropped uint64) { return s.written.Load(), s.dropped.Load() }

// Queued returns how many records wait to be sent.
func (s *sender[T]) Queued() uint64 { return uint64(s.queue.len()) }

// Name returns the output's name: otlp: and the URL of the signal.
func (s *sender[T]) Name() string { return s.name }
