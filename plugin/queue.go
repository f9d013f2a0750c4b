package dnstrace

import (
	"sync"
	"time"
)

// batchSize and batchDelay bound a batch: a writer works when this many records
// wait, or when the first of them has waited this long. Waking a goroutine for
// every record would cost more than everything else here.
const (
	batchSize  = 256
	batchDelay = 50 * time.Millisecond
)

// queue holds the records that an output has not written yet. Adding one never
// waits.
type queue struct {
	limit int
	batch int
	lost  func(cause string)
	some  chan struct{} // signals the first record of a batch, and close
	many  chan struct{} // signals a whole batch, and close

	mu      sync.Mutex
	pending []*recording
	writing int // taken and not yet done
	closed  bool
}

func newQueue(limit int, lost func(cause string)) *queue {
	return &queue{
		limit: limit, batch: min(batchSize, (limit+1)/2), lost: lost,
		some: make(chan struct{}, 1), many: make(chan struct{}, 1),
	}
}

// push adds a record, or counts it as lost.
func (q *queue) push(rec *recording) {
	q.mu.Lock()
	var cause string
	switch {
	case q.closed:
		cause = causeClosed
	case len(q.pending)+q.writing >= q.limit:
		cause = causeQueueFull
	default:
		q.pending = append(q.pending, rec)
	}
	n := len(q.pending)
	q.mu.Unlock()
	switch {
	case cause != "":
		q.lost(cause)
	case n == 1:
		signal(q.some)
	case n == q.batch:
		signal(q.many)
	}
}

// take waits for records and returns them in the place of done, the batch that
// the caller has finished with. It returns nothing when the queue is closed and
// empty.
func (q *queue) take(done []*recording, timer *time.Timer) []*recording {
	clear(done)
	q.mu.Lock()
	q.writing = 0
	for len(q.pending) == 0 && !q.closed {
		q.mu.Unlock()
		<-q.some
		q.mu.Lock()
	}
	if len(q.pending) < q.batch && !q.closed {
		q.mu.Unlock()
		timer.Reset(batchDelay)
		select {
		case <-timer.C:
		case <-q.many:
		}
		timer.Stop()
		q.mu.Lock()
	}
	batch := q.pending
	q.pending = done[:0]
	q.writing = len(batch)
	q.mu.Unlock()
	return batch
}

// grow raises the limit, for another user of the same output.
func (q *queue) grow(limit int) {
	q.mu.Lock()
	if limit > q.limit {
		q.limit, q.batch = limit, min(batchSize, (limit+1)/2)
	}
	q.mu.Unlock()
}

// close lets take return what is left and then nothing.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	signal(q.some)
	signal(q.many)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
