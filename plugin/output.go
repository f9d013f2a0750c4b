package dnstrace

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// flushTimeout bounds the wait for an output's last records when CoreDNS stops
// or reloads.
const flushTimeout = time.Second

// Kinds of output.
const (
	outputStdout = "stdout"
	outputStderr = "stderr"
	outputFile   = "file"
	outputUnix   = "unix"
)

// outputConfig is an output as the Corefile names it.
type outputConfig struct {
	kind string
	path string
}

// String returns the output as the Corefile names it.
func (c outputConfig) String() string {
	if c.path == "" {
		return c.kind
	}
	return c.kind + " " + c.path
}

// sink is where lines go. Only one goroutine writes.
type sink interface {
	// write writes whole lines. It may wait; after an error, done says how
	// many bytes went out.
	write(lines []byte) (done int, err error)
	// limit is the most bytes that a write should have; one line may be more.
	limit() int
	// interrupt makes a write that waits fail at t, and all later ones too.
	interrupt(t time.Time)
	close() error
}

// errNoReceiver is wrapped by the error of a sink that nobody listens to.
var errNoReceiver = errors.New("nobody listens on the socket: start the node tracer with `dnstrace run --listen PATH`")

// output writes records to a sink. All server blocks that name it share it, so
// that lines stay whole.
type output struct {
	config  outputConfig
	queue   *queue
	sink    sink
	users   int // guarded by outputsMu
	done    chan struct{}
	closing sync.Once

	// Of the writer.
	encoder encoder
	lines   []byte
	ends    []int // of the lines
	failed  bool  // the last write failed
	refused bool  // and records may not go there
}

var (
	outputsMu sync.Mutex
	outputs   = make(map[outputConfig]*output)
)

// acquire returns the output of c, opened if nobody uses it yet.
func acquire(c outputConfig, buffer int) (*output, error) {
	outputsMu.Lock()
	defer outputsMu.Unlock()
	if o, ok := outputs[c]; ok {
		o.users++
		o.queue.grow(buffer)
		return o, nil
	}
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	o := startOutput(c, s, buffer)
	o.users = 1
	outputs[c] = o
	return o, nil
}

func startOutput(c outputConfig, s sink, buffer int) *output {
	o := &output{config: c, sink: s, done: make(chan struct{})}
	// Queries count what the queue does not take, so the counters are looked up once.
	full, closed := lossCounter(c, causeQueueFull), lossCounter(c, causeClosed)
	o.queue = newQueue(buffer, func(cause string) {
		if cause == causeClosed {
			closed().Inc()
		} else {
			full().Inc()
		}
	})
	go o.run()
	return o
}

// lossCounter returns what finds the counter of a cause of loss, once there is one.
func lossCounter(c outputConfig, cause string) func() prometheus.Counter {
	return sync.OnceValue(func() prometheus.Counter { return recordsDropped.WithLabelValues(c.String(), cause) })
}

// release gives back an output; the last user closes it, and waits for its
// records to be written, within flushTimeout.
func (o *output) release() {
	outputsMu.Lock()
	o.users--
	last := o.users == 0
	if last {
		delete(outputs, o.config)
	}
	outputsMu.Unlock()
	if last {
		o.close()
	} else {
		o.queue.relax()
	}
}

// flush writes what there is before CoreDNS ends, and from now on each record at once, while
// its query waits. An output that is blocked is closed instead.
func (o *output) flush() {
	o.queue.hurry()
	if !o.queue.drain(flushTimeout) {
		o.close()
	}
}

// close writes what there is, within flushTimeout.
func (o *output) close() { o.closing.Do(o.end) }

func (o *output) end() {
	o.queue.close()
	o.sink.interrupt(time.Now().Add(flushTimeout))
	// A terminal or socket on standard output can keep a write waiting beyond
	// any deadline; CoreDNS must stop all the same.
	timer := time.NewTimer(flushTimeout + flushTimeout/4)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
		if lost := o.queue.abandon(); lost > 0 {
			recordsDropped.WithLabelValues(o.config.String(), causeClosed).Add(float64(lost))
			log.Warningf("output %s: still blocked after %v; its last %d records are lost", o.config, flushTimeout, lost)
		}
	}
}

// run writes batches until the queue is closed.
func (o *output) run() {
	defer close(o.done)
	timer := time.NewTimer(batchDelay)
	defer timer.Stop()
	var records []*record
	for {
		records = o.queue.take(records, timer)
		if len(records) == 0 || !o.writeAll(records) {
			break
		}
	}
	if err := o.sink.close(); err != nil {
		log.Warningf("output %s: %v", o.config, err)
	}
}

// writeAll writes records, as many at once as the sink takes. It returns false when close has
// given them up, and counted them.
func (o *output) writeAll(records []*record) bool {
	first := 0 // of those in lines
	o.lines, o.ends = o.lines[:0], o.ends[:0]
	for i, rec := range records {
		full := len(o.lines)
		o.lines = o.encoder.append(o.lines, rec)
		if full > 0 && len(o.lines) > o.sink.limit() {
			if !o.write(records[first:i], o.lines[:full]) {
				return false
			}
			first, o.lines, o.ends = i, append(o.lines[:0], o.lines[full:]...), o.ends[:0]
		}
		o.ends = append(o.ends, len(o.lines))
	}
	return o.write(records[first:], o.lines)
}

// write writes the lines of records, and counts them.
func (o *output) write(records []*record, lines []byte) bool {
	done, err := o.sink.write(lines)
	if !o.queue.finish(len(records)) {
		return false
	}
	o.report(err)
	o.count(records, done, err)
	return true
}

// count counts the records of a write, of which done bytes went out.
func (o *output) count(records []*record, done int, err error) {
	name := o.config.String()
	written := make(map[string]int)
	lost := 0
	for i, rec := range records {
		if o.ends[i] > done {
			lost++
		} else {
			written[rec.kind()]++
		}
	}
	for kind, n := range written {
		recordsWritten.WithLabelValues(name, kind).Add(float64(n))
	}
	if lost > 0 {
		cause := causeWriteError
		if errors.Is(err, errNoReceiver) {
			cause = causeNoReceiver
		}
		recordsDropped.WithLabelValues(name, cause).Add(float64(lost))
	}
}

// report logs when an output fails, when it works again, and when what keeps it from
// working is no longer that nobody is there, but that records may not go there.
func (o *output) report(err error) {
	var r refusedError
	refused := errors.As(err, &r)
	switch {
	case err != nil && (!o.failed || refused && !o.refused):
		log.Warningf("output %s: %v; records are dropped and counted until it works again", o.config, err)
	case err == nil && o.failed:
		log.Infof("output %s: works again", o.config)
	}
	o.failed, o.refused = err != nil, refused
}
