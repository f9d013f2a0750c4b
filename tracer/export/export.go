// Package export is the last step of the tracer: it writes records out.
package export

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dnstrace/dnstrace/trace/recordfile"
)

// Bounds of a writer: records wait in blocks that are written at once. A block
// is what a pipe or a page-cache write takes well, and holds some five
// milliseconds of a busy node; all of them are half a second of it. A few blocks
// that were written are kept, to be filled again.
const (
	blockBytes = 256 << 10
	blockRoom  = blockBytes + 32<<10 // the last record of a block reaches beyond
	maxBlocks  = 64
	maxFree    = 8
)

// closePatience is how long Close waits for an output that takes nothing, such as
// a pipe whose reader hangs.
const closePatience = 5 * time.Second

// Writer writes records as JSON lines from a goroutine of its own, so that a slow output
// blocks no caller. What does not fit its bound is dropped and counted.
type Writer struct {
	name    string
	out     appender
	mu      sync.Mutex
	wake    *sync.Cond // there is something to write, or the end
	room    *sync.Cond // a full block was taken
	block   block
	full    []block
	free    [][]byte
	closed  bool
	waits   bool // Write waits for room
	done    chan struct{}
	patient time.Duration // of Close
	written atomic.Uint64
	dropped atomic.Uint64
	failed  atomic.Pointer[error]
}

// block is records that are written at once.
type block struct {
	lines   []byte
	records uint64
}

// appender is where lines go: a recordfile.Log, or a stream.
type appender interface {
	Append(lines []byte) (whole int, err error)
	io.Closer
}

// Open opens an output: stdout, or file:PATH, which is appended to, as package
// recordfile allows, and opened again when it is rotated; the error of a path is an
// *fs.PathError. warn is called where a file cannot be opened again. The caller must
// close the output.
func Open(spec string, warn func(error)) (*Writer, error) {
	switch path, isFile := strings.CutPrefix(spec, "file:"); {
	case spec == "stdout":
		return newWriter(spec, &stream{to: os.Stdout}), nil
	case isFile && path != "":
		l, err := recordfile.OpenLog(path, func(err error) { warn(fmt.Errorf("output %s: %w", spec, err)) })
		if err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		return newWriter(spec, l), nil
	}
	return nil, fmt.Errorf("output %q: expected stdout, file:PATH or otlp:URL", spec)
}

// stream is standard output, which stays open for whoever else prints.
type stream struct {
	to    io.Writer
	lines recordfile.Lines
}

// Append implements appender.
func (s *stream) Append(lines []byte) (whole int, err error) { return s.lines.WriteTo(s.to, lines) }

// Close implements io.Closer.
func (*stream) Close() error { return nil }

func newWriter(name string, out appender) *Writer {
	w := &Writer{name: name, out: out, done: make(chan struct{}), patient: closePatience}
	w.block.lines = w.empty()
	w.wake, w.room = sync.NewCond(&w.mu), sync.NewCond(&w.mu)
	go w.run()
	return w
}

// Write queues a record, encoded and without a newline. It does not block, unless
// after Last, and does not keep line.
func (w *Writer) Write(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.waits && len(w.full) >= maxBlocks {
		w.wake.Signal()
		w.room.Wait()
	}
	if len(w.full) >= maxBlocks {
		w.dropped.Add(1)
		return
	}
	w.block.lines = append(append(w.block.lines, line...), '\n')
	w.block.records++
	if len(w.block.lines) >= blockBytes {
		w.full = append(w.full, w.block)
		w.block = block{lines: w.empty()}
		w.wake.Signal() // a round of records may be many blocks
	}
}

// empty returns room for a block.
func (w *Writer) empty() []byte {
	n := len(w.free)
	if n == 0 {
		return make([]byte, 0, blockRoom)
	}
	b := w.free[n-1]
	w.free = w.free[:n-1]
	return b
}

// Last says that only the remaining records at the end are still to come. They are many at
// once: Write waits for room from now on, but no longer than patience in total.
func (w *Writer) Last(patience time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = true
	time.AfterFunc(patience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waits = false
		w.room.Broadcast()
	})
}

// Flush hands what is queued to the goroutine. The caller does so as often as a
// reader should see new records.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.block.records > 0 || len(w.full) > 0 {
		w.wake.Signal()
	}
}

// Close writes what is queued and closes the output. It returns the first error of writing.
// It gives up on an output that blocks (closePatience).
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(w.patient):
		return fmt.Errorf("output %s: nobody took the last records within %s", w.name, w.patient)
	}
	err := w.out.Close()
	if failed := w.failed.Load(); failed != nil {
		return fmt.Errorf("output %s: %w", w.name, *failed)
	}
	return err
}

// Stats returns how many records were written and how many were dropped.
func (w *Writer) Stats() (written, dropped uint64) { return w.written.Load(), w.dropped.Load() }

// Queued returns how many records wait to be written.
func (w *Writer) Queued() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.block.records
	for _, b := range w.full {
		n += b.records
	}
	return n
}

// Name returns the output's name, as given to Open.
func (w *Writer) Name() string { return w.name }

func (w *Writer) run() {
	defer close(w.done)
	for {
		blocks := w.take()
		if len(blocks) == 0 {
			return
		}
		for _, b := range blocks {
			w.writeOut(b)
			w.release(b.lines)
		}
	}
}

// take waits for what is to be written; none means the end.
func (w *Writer) take() []block {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.block.records == 0 && len(w.full) == 0 && !w.closed {
		w.wake.Wait()
	}
	blocks := w.full
	if w.block.records > 0 {
		blocks = append(blocks, w.block)
	}
	w.full, w.block = nil, block{lines: w.empty()}
	w.room.Broadcast()
	return blocks
}

// release keeps a block that was written, to be filled again.
func (w *Writer) release(lines []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.free) < maxFree && cap(lines) == blockRoom {
		w.free = append(w.free, lines[:0])
	}
}

// writeOut writes a block. After a partial write, as on a full disk, the complete lines count
// as written.
func (w *Writer) writeOut(b block) {
	whole, err := w.out.Append(b.lines)
	if err == nil {
		w.written.Add(b.records)
		return
	}
	w.failed.CompareAndSwap(nil, &err)
	w.written.Add(uint64(whole))
	w.dropped.Add(b.records - uint64(whole))
}
