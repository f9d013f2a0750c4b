// Package receive takes the records that the CoreDNS plugin sends over a unix
// datagram socket (`output unix PATH`).
package receive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// DefaultPath is where plugin and tracer meet unless told otherwise.
const DefaultPath = "/run/dnstrace/records.sock"

// socketMode lets a CoreDNS that does not run as root write records. Whoever can
// reach the socket's folder may; a record is checked, and can at worst be
// false.
const socketMode = 0o666

// maxDatagram is larger than what the plugin puts into one.
const maxDatagram = 1 << 18

// receiveBuffer is asked of the kernel: some 4,000 records between two readings.
// The kernel grants at most net.core.rmem_max.
const receiveBuffer = 8 << 20

// queued is how many records may wait for the pipeline: a second of a busy node.
const queued = 16384

// Receiver reads records from a socket.
type Receiver struct {
	conn      *net.UnixConn
	path      string
	records   chan trace.Record
	received  atomic.Uint64
	malformed atomic.Uint64
	dropped   atomic.Uint64
	lastError atomic.Pointer[error]
}

// Stats counts records. All only grow.
type Stats struct {
	Received  uint64
	Malformed uint64 // lines that were no record
	Dropped   uint64 // not taken in time by the pipeline
}

// Listen binds the socket at path, in a directory that it makes if need be, and
// starts to read. It takes the place of a socket that nobody reads any more.
// The caller must close the receiver.
func Listen(path string) (*Receiver, error) {
	if err := unixsocket.Prepare("unixgram", path, "--listen"); err != nil {
		return nil, fmt.Errorf("record socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("record socket: %w", err)
	}
	// A smaller buffer than asked for loses records sooner, and the plugin
	// counts what it could not send.
	_ = conn.SetReadBuffer(receiveBuffer)
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("record socket: %w", err), conn.Close())
	}
	r := &Receiver{conn: conn, path: path, records: make(chan trace.Record, queued)}
	go r.read()
	return r, nil
}

// Records delivers the records; it is closed after Close.
func (r *Receiver) Records() <-chan trace.Record { return r.records }

// Queued returns how many records wait to be taken.
func (r *Receiver) Queued() int { return len(r.records) }

// Stats returns the counters.
func (r *Receiver) Stats() Stats {
	return Stats{Received: r.received.Load(), Malformed: r.malformed.Load(), Dropped: r.dropped.Load()}
}

// LastError returns why the last malformed line was refused, or nil.
func (r *Receiver) LastError() error {
	if err := r.lastError.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops reading and removes the socket.
func (r *Receiver) Close() error {
	// Gone before it is closed, so that a new tracer's socket is not removed.
	err := os.Remove(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.conn.Close())
}

func (r *Receiver) read() {
	defer close(r.records)
	buf := make([]byte, maxDatagram)
	for {
		n, err := r.conn.Read(buf)
		if err != nil {
			return // closed
		}
		r.datagram(buf[:n])
	}
}

func (r *Receiver) datagram(b []byte) {
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		rec, err := trace.Decode(line)
		if err == nil && rec.Kind() != trace.KindQuery && rec.Kind() != trace.KindRefresh {
			err = fmt.Errorf("a plugin writes query and refresh records, not %s", rec.Kind())
		}
		if err != nil {
			r.malformed.Add(1)
			r.lastError.Store(&err)
			continue
		}
		r.received.Add(1)
		select {
		case r.records <- rec:
		default:
			r.dropped.Add(1)
		}
	}
}
