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
	// spareChunks is how many chunks a queue keeps for its next batches; what a
	// slow output made it hold beyond that goes back to the heap.
	spareChunks = 8
)

// chunk is the lines of one write.
type chunk struct {
	lines []byte
	ends  []lineEnd
}

// lineEnd is where the line of a record ends in a chunk.
type lineEnd struct {
	offset int
	kind   string
}

// queue holds the records that an output has not written yet, as lines. Adding
// one never waits.
type queue struct {
	size  int // of a chunk
	limit int
	batch int
	lost  func(cause string)
	some  chan struct{} // signals the first record of a batch, and close
	many  chan struct{} // signals a whole batch, and close

	mu      sync.Mutex
	chunks  []*chunk
	spare   []*chunk
	pending int  // records in chunks
	writing int  // taken and not yet done
	hurried bool // CoreDNS ends: records are written at once
	closed  bool
	gone    bool // nobody waits for what is left
}

// newQueue returns a queue of at most limit records, in chunks of size bytes; a
// longer line is a chunk of its own.
func newQueue(limit, size int, lost func(cause string)) *queue {
	return &queue{
		size: size, limit: limit, batch: min(batchSize, (limit+1)/2), lost: lost,
		some: make(chan struct{}, 1), many: make(chan struct{}, 1),
	}
}

// push adds a record, or counts it as lost. It keeps a copy of line.
func (q *queue) push(line []byte, kind string) {
	q.mu.Lock()
	var cause string
	switch {
	case q.closed:
		cause = causeClosed
	case q.pending+q.writing >= q.limit:
		cause = causeQueueFull
	default:
		c := q.room(len(line))
		c.lines = append(c.lines, line...)
		c.ends = append(c.ends, lineEnd{len(c.lines), kind})
		q.pending++
	}
	n, hurried := q.pending, q.hurried
	q.mu.Unlock()
	switch {
	case cause != "":
		q.lost(cause)
	case hurried:
		q.flush(flushTimeout)
	case n == 1:
		signal(q.some)
	case n == q.batch:
		signal(q.many)
	}
}

// room returns the chunk that the next n bytes go to.
func (q *queue) room(n int) *chunk {
	if last := len(q.chunks) - 1; last >= 0 && len(q.chunks[last].lines)+n <= q.size {
		return q.chunks[last]
	}
	var c *chunk
	if last := len(q.spare) - 1; last >= 0 {
		c, q.spare = q.spare[last], q.spare[:last]
	} else {
		c = &chunk{lines: make([]byte, 0, q.size)}
	}
	q.chunks = append(q.chunks, c)
	return c
}

// take waits for records and returns them; done are the chunks that the caller
// has finished with. It returns nothing when the queue is closed and empty.
func (q *queue) take(done []*chunk, timer *time.Timer) []*chunk {
	q.mu.Lock()
	q.recycle(done)
	for q.pending == 0 && !q.closed {
		q.mu.Unlock()
		<-q.some
		q.mu.Lock()
	}
	if q.pending < q.batch && !q.closed && !q.hurried {
		q.mu.Unlock()
		timer.Reset(batchDelay)
		select {
		case <-timer.C:
		case <-q.many:
		}
		timer.Stop()
		q.mu.Lock()
	}
	chunks := q.chunks
	q.chunks = done[:0]
	q.writing, q.pending = q.pending, 0
	q.mu.Unlock()
	return chunks
}

// recycle takes back chunks that are written.
func (q *queue) recycle(done []*chunk) {
	for _, c := range done {
		if len(q.spare) < spareChunks && cap(c.lines) <= q.size {
			c.lines, c.ends = c.lines[:0], c.ends[:0]
			q.spare = append(q.spare, c)
		}
	}
	clear(done)
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
	return q.pending + q.writing
}

// grow raises the limit, for another user of the same output.
func (q *queue) grow(limit int) {
	q.mu.Lock()
	if limit > q.limit {
		q.limit, q.batch = limit, min(batchSize, (limit+1)/2)
	}
	q.mu.Unlock()
}

// flush waits until there is nothing left to write, no longer than a time, and has the records
// after that written at once, each while its query waits.
func (q *queue) flush(limit time.Duration) bool {
	q.mu.Lock()
	q.hurried = true
	q.mu.Unlock()
	signal(q.some)
	signal(q.many)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		q.mu.Lock()
		left := q.pending + q.writing
		q.mu.Unlock()
		if left == 0 {
			return true
		}
	}
	return false
}

// relax ends what flush began, for those who still use the output.
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
	signal(q.some)
	signal(q.many)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
