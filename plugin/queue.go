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

// queue holds the records that an output has not written yet. Adding one never waits, until
// CoreDNS ends.
type queue struct {
	limit int
	batch int
	lost  func(cause string)
	some  chan struct{} // signals the first record of a batch, and what wake is for
	many  chan struct{} // signals a whole batch, and what wake is for

	mu      sync.Mutex
	pending []*record
	writing int  // taken and not yet done
	hurried bool // CoreDNS ends: records are written at once
	closed  bool
	gone    bool // nobody waits for what is left
}

// newQueue returns a queue of at most limit records.
func newQueue(limit int, lost func(cause string)) *queue {
	return &queue{
		limit: limit, batch: min(batchSize, (limit+1)/2), lost: lost,
		some: make(chan struct{}, 1), many: make(chan struct{}, 1),
	}
}

// push adds a record, or counts it as lost.
func (q *queue) push(rec *record) {
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
	n, hurried := len(q.pending), q.hurried
	q.mu.Unlock()
	switch {
	case cause != "":
		q.lost(cause)
	case hurried:
		q.wake()
		if !q.drain(flushTimeout) {
			q.relax() // the output does not take them: one wait is enough
		}
	case n == 1:
		signal(q.some)
	case n == q.batch:
		signal(q.many)
	}
}

// take waits for records and returns them; done is the memory of those that the caller
// has finished with. It returns nothing when the queue is closed and empty.
func (q *queue) take(done []*record, timer *time.Timer) []*record {
	clear(done)
	q.mu.Lock()
	for len(q.pending) == 0 && !q.closed {
		q.mu.Unlock()
		<-q.some
		q.mu.Lock()
	}
	if len(q.pending) < q.batch && !q.closed && !q.hurried {
		q.mu.Unlock()
		timer.Reset(batchDelay)
		select {
		case <-timer.C:
		case <-q.many:
		}
		timer.Stop()
		q.mu.Lock()
	}
	records := q.pending
	if cap(done) > batchSize*4 {
		done = nil // what a slow output made it hold goes back to the heap
	}
	q.pending, q.writing = done[:0], len(records)
	q.mu.Unlock()
	return records
}

// finish notes that n of the records that were taken are done with. It returns false
// where abandon has given them up.
func (q *queue) finish(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing -= n
	return !q.gone
}

// abandon gives up the records that are not done with, and returns how many they are.
func (q *queue) abandon() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = true
	return len(q.pending) + q.writing
}

// grow raises the limit, for another user of the same output.
func (q *queue) grow(limit int) {
	q.mu.Lock()
	if limit > q.limit {
		q.limit, q.batch = limit, min(batchSize, (limit+1)/2)
	}
	q.mu.Unlock()
}

// hurry has records written at once from now on, each while its query waits, as long as relax
// does not end that.
func (q *queue) hurry() {
	q.mu.Lock()
	q.hurried = true
	q.mu.Unlock()
	q.wake()
}

// drain waits until there is nothing left to write, no longer than a time.
func (q *queue) drain(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		q.mu.Lock()
		left := len(q.pending) + q.writing
		q.mu.Unlock()
		if left == 0 {
			return true
		}
	}
	return false
}

// relax ends what hurry began, for those who still use the output.
func (q *queue) relax() {
	q.mu.Lock()
	q.hurried = false
	q.mu.Unlock()
}

// close lets take return what is left and then nothing.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
}

// wake has the writer look now.
func (q *queue) wake() {
	signal(q.some)
	signal(q.many)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
