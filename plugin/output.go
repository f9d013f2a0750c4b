package dnstrace

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// batchSize and batchDelay bound a batch: the writer writes when this many records wait, or this long after the
	// first. Waking a goroutine for every record would cost more than all else in this package.
	batchSize  = 256
	batchDelay = 50 * time.Millisecond
	// flushTimeout bounds the time to write an output's last records when CoreDNS stops or reloads.
	flushTimeout = time.Second
)

// output holds records in a bounded queue, from which a goroutine writes them to a sink. The goroutine starts with
// a record and ends when there are no more. Each record that push gets is counted once: as written, or as dropped.
type output struct {
	config  outputConfig
	sink    sink
	limit   int                           // of the records held
	written map[string]prometheus.Counter // by kind
	dropped map[string]prometheus.Counter // by cause
	full    chan struct{}                 // signals a whole batch

	overdue context.Context // done when the sink must not wait any longer
	expire  context.CancelFunc

	mu      sync.Mutex
	queue   []*record // that the writer has not taken
	writing int       // records that it has taken, and neither written nor dropped
	running bool      // there is a writer
	ending  bool      // CoreDNS ends: a query waits until its record is written
	closed  bool      // it was blocked when CoreDNS stopped or reloaded, and takes no more

	// Of the writer.
	encoder encoder
	lines   []byte
	failed  bool // the last write failed
	refused bool // with errRefused
}

func newOutput(c outputConfig, s sink, limit int) *output {
	o := &output{
		config: c, sink: s, limit: limit, written: make(map[string]prometheus.Counter), dropped: make(map[string]prometheus.Counter),
		full: make(chan struct{}, 1),
	}
	o.overdue, o.expire = context.WithCancel(context.Background())
	for _, kind := range []string{trace.KindQuery, trace.KindRefresh} {
		o.written[kind] = recordsWritten.WithLabelValues(c.String(), kind)
	}
	for _, cause := range []string{causeQueueFull, causeNoReceiver, causeWriteError, causeClosed} {
		o.dropped[cause] = recordsDropped.WithLabelValues(c.String(), cause)
	}
	return o
}

// push adds a record, or counts it as dropped. It only waits when CoreDNS ends.
func (o *output) push(rec *record) {
	wait := false
	o.mu.Lock()
	switch {
	case o.closed:
		o.dropped[causeClosed].Inc()
	case len(o.queue)+o.writing >= o.limit:
		o.dropped[causeQueueFull].Inc()
	default:
		o.queue = append(o.queue, rec)
		wait = o.ending
		if !o.running {
			o.running = true
			go o.run()
		}
		if len(o.queue) >= min(batchSize, (o.limit+1)/2) {
			o.wake()
		}
	}
	o.mu.Unlock()
	if wait {
		o.flush()
	}
}

// wake makes the writer write at once.
func (o *output) wake() {
	select {
	case o.full <- struct{}{}:
	default:
	}
}

// end flushes before CoreDNS ends; from now on, a query waits until its record is written.
func (o *output) end() {
	o.mu.Lock()
	o.ending = true
	o.mu.Unlock()
	o.flush()
}

// flush writes all records. It closes an output that is blocked for flushTimeout: what that holds is lost, and counted.
func (o *output) flush() {
	if o.drain(flushTimeout) {
		return
	}
	o.expire()
	// A write to a terminal or socket on standard output may have no deadline; CoreDNS must stop all the same.
	o.drain(flushTimeout / 4)
	o.mu.Lock()
	lost := len(o.queue) + o.writing
	o.queue, o.writing, o.closed = nil, 0, true
	o.mu.Unlock()
	if lost > 0 {
		o.dropped[causeClosed].Add(float64(lost))
		// Not here: the log may go to the pipe that is blocked.
		go log.Warningf("output %s: still blocked after %v; its last %d records are lost", o.config, flushTimeout, lost)
	}
}

// drain waits until no record is held, and reports whether none is before timeout.
func (o *output) drain(timeout time.Duration) bool {
	for end := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		held := len(o.queue) + o.writing
		o.mu.Unlock()
		if held == 0 || time.Now().After(end) {
			return held == 0
		}
		o.wake()
	}
}

// run writes batches until no records wait.
func (o *output) run() {
	for {
		select {
		case <-o.full:
		case <-time.After(batchDelay):
		}
		o.mu.Lock()
		batch := o.queue
		o.queue, o.writing, o.running = nil, len(batch), len(batch) > 0
		o.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		o.writeAll(batch)
	}
}

// writeAll writes records in pieces that fit the sink, until flush gives them up.
func (o *output) writeAll(records []*record) {
	o.lines = o.lines[:0]
	first := 0 // of those in lines
	for i, rec := range records {
		size := len(o.lines)
		o.lines = o.encoder.append(o.lines, rec)
		if size > 0 && len(o.lines) > o.sink.limit() {
			if !o.write(records[first:i], o.lines[:size]) {
				return
			}
			first, o.lines = i, append(o.lines[:0], o.lines[size:]...)
		}
	}
	o.write(records[first:], o.lines)
}

// write writes the lines of records, one each, and counts and clears the records. It returns false if flush has given
// them up.
func (o *output) write(records []*record, lines []byte) bool {
	whole, err := o.sink.write(o.overdue, lines)
	cause := causeWriteError
	if err == nil {
		whole = len(records)
	}
	if errors.Is(err, errNoReceiver) || errors.Is(err, errRefused) {
		cause = causeNoReceiver
	}
	o.mu.Lock()
	if o.writing == 0 {
		o.mu.Unlock()
		return false
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
	o.writing -= len(records)
	o.mu.Unlock()
	clear(records)
	o.report(err) // without the lock: the log may be blocked
	return true
}

// report logs when an output fails, when it works again, and when the reason of a failure becomes errRefused, which
// has another remedy.
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
