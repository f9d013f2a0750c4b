// Package export is the last step of the tracer: it writes records out.
package export

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of a writer: records wait in blocks that are written at once. A block
// is what a pipe or a page-cache write takes well; eight of them are a second
// of a busy node.
const (
	blockBytes = 1 << 20
	maxBlocks  = 8
)

// Writer writes records as JSON lines from a goroutine of its own, so that a
// slow output holds nobody up. What does not fit its bound is dropped and
// counted.
type Writer struct {
	name    string
	out     io.WriteCloser
	mu      sync.Mutex
	wake    *sync.Cond
	block   block
	full    []block
	closed  bool
	done    chan struct{}
	written atomic.Uint64
	dropped atomic.Uint64
	failed  atomic.Pointer[error]
}

// block is records that are written at once.
type block struct {
	lines   []byte
	records uint64
}

// Open opens an output: stdout, or file:PATH, which is appended to and created
// with mode 0640. The caller must close it.
func Open(spec string) (*Writer, error) {
	switch path, isFile := strings.CutPrefix(spec, "file:"); {
	case spec == "stdout":
		return newWriter(spec, keepOpen{os.Stdout}), nil
	case isFile && path != "":
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		return newWriter(spec, f), nil
	}
	return nil, fmt.Errorf("output %q: expected stdout or file:PATH", spec)
}

// keepOpen keeps standard output open for whoever else prints.
type keepOpen struct{ io.Writer }

// Close implements io.Closer.
func (keepOpen) Close() error { return nil }

func newWriter(name string, out io.WriteCloser) *Writer {
	w := &Writer{name: name, out: out, done: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	go w.run()
	return w
}

// Write queues a record. It does not block and does not keep r.
func (w *Writer) Write(r trace.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.full) >= maxBlocks {
		w.dropped.Add(1)
		return
	}
	w.block.lines = append(r.AppendJSON(w.block.lines), '\n')
	w.block.records++
	if len(w.block.lines) >= blockBytes {
		w.full = append(w.full, w.block)
		w.block = block{}
	}
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

// Close writes what is queued and closes the output. It returns the first error
// of writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.done
	err := w.out.Close()
	if failed := w.failed.Load(); failed != nil {
		return fmt.Errorf("output %s: %w", w.name, *failed)
	}
	return err
}

// Stats returns how many records were written and how many were dropped.
func (w *Writer) Stats() (written, dropped uint64) { return w.written.Load(), w.dropped.Load() }

// Name returns the output's name, as given to Open.
func (w *Writer) Name() string { return w.name }

func (w *Writer) run() {
	defer close(w.done)
	for {
		w.mu.Lock()
		for w.block.records == 0 && len(w.full) == 0 && !w.closed {
			w.wake.Wait()
		}
		blocks := w.full
		if w.block.records > 0 {
			blocks = append(blocks, w.block)
		}
		w.full, w.block = nil, block{}
		over := w.closed && len(blocks) == 0
		w.mu.Unlock()
		if over {
			return
		}
		for _, b := range blocks {
			w.writeOut(b)
		}
	}
}

func (w *Writer) writeOut(b block) {
	if _, err := w.out.Write(b.lines); err != nil {
		w.failed.CompareAndSwap(nil, &err)
		w.dropped.Add(b.records)
		return
	}
	w.written.Add(b.records)
}
