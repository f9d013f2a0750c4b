package dnstrace

import (
	"bytes"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// batchSize and batchDelay bound a batch: a writer works when this many records wait, or when the first of
	// them has waited this long. Waking a goroutine for every record would cost more than everything else here.
	batchSize  = 256
	batchDelay = 50 * time.Millisecond
	// flushTimeout bounds the wait for an output's last records when CoreDNS stops or reloads.
	flushTimeout = time.Second
)

// output holds records in a bounded queue, and writes them to a sink in a goroutine that starts with the first
// record. Each record that push gets is counted once: as written, or as dropped.
type output struct {
	config  outputConfig
	sink    sink
	limit   int                           // of the records held
	written map[string]prometheus.Counter // by kind
	dropped map[string]prometheus.Counter // by cause

	start sync.Once
	queue chan *record  // a nil wakes the writer
	full  chan struct{} // signals a whole batch
	done  chan struct{} // closed when the writer has ended

	held    atomic.Int64 // records that are neither written nor dropped; negative: abandoned
	ending  atomic.Bool  // CoreDNS ends: a query waits until its record is written
	closed  atomic.Bool
	overdue atomic.Bool // the sink should wait no longer

	// Of the writer.
	encoder encoder
	lines   []byte
	failed  bool // the last write failed
	refused bool // and records may not go there
}

func newOutput(c outputConfig, s sink, limit int) *output {
	o := &output{
		config: c, sink: s, limit: limit, written: make(map[string]prometheus.Counter), dropped: make(map[string]prometheus.Counter),
		full: make(chan struct{}, 1), done: make(chan struct{}),
	}
	for _, kind := range []string{trace.KindQuery, trace.KindRefresh} {
		o.written[kind] = recordsWritten.WithLabelValues(c.String(), kind)
	}
	for _, cause := range []string{causeQueueFull, causeNoReceiver, causeWriteError, causeClosed} {
		o.dropped[cause] = recordsDropped.WithLabelValues(c.String(), cause)
	}
	return o
}

// batch returns the number of records that are written without delay.
func (o *output) batch() int { return min(batchSize, (o.limit+1)/2) }

// push adds a record, or counts it as dropped. It never waits, until CoreDNS ends.
func (o *output) push(rec *record) {
	o.start.Do(o.begin)
	held := o.held.Add(1)
	switch {
	case o.closed.Load(): // held was raised before this was asked: the writer does not end in between
		o.held.Add(-1)
		o.dropped[causeClosed].Inc()
		o.wake()
	case held > int64(o.limit):
		o.held.Add(-1)
		o.dropped[causeQueueFull].Inc()
	default:
		o.queue <- rec // there is room
		if len(o.queue) >= o.batch() {
			signal(o.full)
		}
		if o.ending.Load() && !o.drain() {
			o.ending.Store(false) // it takes nothing, and one wait is enough
		}
	}
}

// wake has the writer look what is to be done.
func (o *output) wake() {
	signal(o.full)
	select {
	case o.queue <- nil:
	default:
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drain waits until all records are written, within flushTimeout, and reports whether they are.
func (o *output) drain() bool {
	signal(o.full)
	for end := time.Now().Add(flushTimeout); o.held.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// flush writes what there is before CoreDNS ends, and from now on each record at once. An output that is
// blocked is closed instead.
func (o *output) flush() {
	o.ending.Store(true)
	if !o.drain() {
		o.overdue.Store(true)
		o.close()
	}
}

// close writes what there is, within flushTimeout; what is left then is lost, and counted.
func (o *output) close() {
	if o.closed.Swap(true) {
		return
	}
	o.start.Do(o.begin)
	o.wake()
	overdue := time.AfterFunc(flushTimeout, func() { o.overdue.Store(true) })
	defer overdue.Stop()
	// A terminal or socket on standard output can keep a write waiting whatever is overdue; CoreDNS must stop
	// all the same.
	select {
	case <-o.done:
	case <-time.After(flushTimeout + flushTimeout/4):
		if lost := o.held.Swap(math.MinInt64 / 2); lost > 0 {
			o.dropped[causeClosed].Add(float64(lost))
			log.Warningf("output %s: still blocked after %v; its last %d records are lost", o.config, flushTimeout, lost)
		}
	}
}

func (o *output) begin() {
	o.queue = make(chan *record, o.limit+1)
	go o.run()
}

// run writes batches until the output is closed.
func (o *output) run() {
	defer close(o.done)
	batch := make([]*record, 0, batchSize)
	for o.held.Load() > 0 || !o.closed.Load() {
		batch = o.take(batch[:0])
		if !o.writeAll(batch) {
			break
		}
		clear(batch)
	}
	if err := o.sink.close(); err != nil {
		log.Warningf("output %s: %v", o.config, err)
	}
}

// take waits for a batch and appends it to an empty one.
func (o *output) take(batch []*record) []*record {
	rec := <-o.queue
	if len(o.queue) < o.batch()-1 && !o.closed.Load() && !o.ending.Load() {
		select {
		case <-o.full:
		case <-time.After(batchDelay):
		}
	}
	for n := min(len(o.queue), batchSize-1); ; n-- {
		if rec != nil {
			batch = append(batch, rec)
		}
		if n == 0 {
			return batch
		}
		rec = <-o.queue
	}
}

// writeAll writes records, as many at once as the sink takes. It returns false when close has given them up.
func (o *output) writeAll(records []*record) bool {
	first := 0 // of those in lines
	o.lines = o.lines[:0]
	for i, rec := range records {
		size := len(o.lines)
		o.lines = o.encoder.append(o.lines, rec)
		if size > 0 && len(o.lines) > o.sink.limit() {
			if !o.write(records[first:i], o.lines[:size]) {
				return false
			}
			first, o.lines = i, append(o.lines[:0], o.lines[size:]...)
		}
	}
	return first == len(records) || o.write(records[first:], o.lines)
}

// write writes the lines of records, one each, and counts them.
func (o *output) write(records []*record, lines []byte) bool {
	n, err := o.sink.write(lines, o.overdue.Load)
	if o.held.Add(-int64(len(records))) < 0 {
		return false
	}
	o.report(err)
	cause, whole := causeWriteError, len(records)
	if err != nil {
		whole = bytes.Count(lines[:n], []byte{'\n'})
	}
	if errors.Is(err, errNoReceiver) || errors.Is(err, errRefused) {
		cause = causeNoReceiver
	}
	for i, rec := range records {
		switch {
		case i >= whole:
			o.dropped[cause].Inc()
		case rec.isRefresh():
			o.written[trace.KindRefresh].Inc()
		default:
			o.written[trace.KindQuery].Inc()
		}
	}
	return true
}

// report logs when an output fails, when it works again, and when what keeps it from working is no longer that
// nobody is there, but that records may not go there.
func (o *output) report(err error) {
	refused := errors.Is(err, errRefused)
	switch {
	case err != nil && (!o.failed || refused && !o.refused):
		log.Warningf("output %s: %v; records are dropped and counted until it works again", o.config, err)
	case err == nil && o.failed:
		log.Infof("output %s: works again", o.config)
	}
	o.failed, o.refused = err != nil, refused
}
