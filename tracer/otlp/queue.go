package otlp

import (
	"sync"
	"time"
)

// Bounds of a queue. A batch of a megabyte stays below the 4 MiB that gRPC servers
// take by default; eight of them are some 1,300 traces: a minute of a
// node with 25 lookups a second, in which a collector restarts.
const (
	queueBytes = 8 << 20
	batchBytes = 1 << 20
	batchAge   = time.Second // how long the first of a batch waits for others
)

// queue holds what waits to be sent. Sizes are those of the records in JSON, which
// approximate their memory.
type queue[T any] struct {
	mu     sync.Mutex
	room   *sync.Cond    // something was taken, or put must not wait any more
	wake   chan struct{} // there may be a batch; capacity 1
	items  []queued[T]
	bytes  int
	since  time.Time // the first came
	closed bool
	waits  bool // put waits for room
}

type queued[T any] struct {
	item T
	size int
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{wake: make(chan struct{}, 1)}
	q.room = sync.NewCond(&q.mu)
	return q
}

// put adds what item returns, unless the queue is full. It does not block, unless
// after waitForRoom.
func (q *queue[T]) put(size int, item func() T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.waits && q.full(size) {
		q.room.Wait()
	}
	if q.closed || q.full(size) {
		return false
	}
	if len(q.items) == 0 {
		q.since = time.Now()
		q.signal()
	}
	q.items = append(q.items, queued[T]{item(), size})
	q.bytes += size
	if q.bytes >= batchBytes {
		q.signal()
	}
	return true
}

// full tells whether there is no room. A record that is larger than all of the
// queue still goes in alone.
func (q *queue[T]) full(size int) bool { return q.bytes > 0 && q.bytes+size > queueBytes }

func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// waitForRoom makes put wait for room from now on, until neverWait: what is left at the end
// comes at once.
func (q *queue[T]) waitForRoom() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waits = true
}

func (q *queue[T]) neverWait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waits = false
	q.room.Broadcast()
}

// close lets take return what is left at once, and then nothing.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *queue[T]) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// take waits for a batch that is large or old enough; none means the end.
func (q *queue[T]) take() []T {
	for {
		batch, wait := q.ready()
		if wait == 0 {
			return batch
		}
		timer := time.NewTimer(wait)
		select {
		case <-q.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ready returns the next batch, or how long to wait for one unless woken.
func (q *queue[T]) ready() (batch []T, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed && q.bytes < batchBytes {
		if len(q.items) == 0 {
			return nil, time.Hour // until put wakes
		}
		if left := batchAge - time.Since(q.since); left > 0 {
			return nil, left
		}
	}
	n, size := 0, 0
	for n < len(q.items) && (n == 0 || size+q.items[n].size <= batchBytes) {
		size += q.items[n].size
		batch = append(batch, q.items[n].item)
		n++
	}
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.bytes -= size
	q.room.Broadcast()
	return batch, 0
}
