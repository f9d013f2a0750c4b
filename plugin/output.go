package dnstrace

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"

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
	config    outputConfig
	queue     *queue
	sink      sink
	users     int // guarded by outputsMu
	done      chan struct{}
	closing   sync.Once
	failed    bool // of the writer: the last write failed
	forbidden bool // and the last failure was for want of a permission
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
	o.queue = newQueue(buffer, s.limit(), func(cause string) {
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
	if !o.queue.flush(flushTimeout) {
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
	var chunks []*chunk
	for {
		chunks = o.queue.take(chunks, timer)
		if len(chunks) == 0 || !o.writeAll(chunks) {
			break
		}
	}
	if err := o.sink.close(); err != nil {
		log.Warningf("output %s: %v", o.config, err)
	}
}

// writeAll writes chunks and counts their records. It returns false when close has
// given up the records, and counted them.
func (o *output) writeAll(chunks []*chunk) bool {
	for _, c := range chunks {
		done, err := o.sink.write(c.lines)
		if !o.queue.finish(len(c.ends)) {
			return false
		}
		o.report(err)
		o.count(c.ends, done, err)
	}
	return true
}

// count counts the records of a write, of which done bytes went out.
func (o *output) count(ends []lineEnd, done int, err error) {
	name := o.config.String()
	var queries, refreshes, lost int
	for _, end := range ends {
		switch {
		case end.offset > done:
			lost++
		case end.kind == trace.KindRefresh:
			refreshes++
		default:
			queries++
		}
	}
	if queries > 0 {
		recordsWritten.WithLabelValues(name, trace.KindQuery).Add(float64(queries))
	}
	if refreshes > 0 {
		recordsWritten.WithLabelValues(name, trace.KindRefresh).Add(float64(refreshes))
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
// working is no longer that nobody is there, but that it may not.
func (o *output) report(err error) {
	forbidden := errors.Is(err, fs.ErrPermission)
	switch {
	case err != nil && (!o.failed || forbidden && !o.forbidden):
		log.Warningf("output %s: %v; records are dropped and counted until it works again", o.config, err)
	case err == nil && o.failed:
		log.Infof("output %s: works again", o.config)
	}
	o.failed, o.forbidden = err != nil, forbidden
}
