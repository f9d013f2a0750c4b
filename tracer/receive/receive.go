// Package receive takes the records that the CoreDNS plugin sends over a unix
// datagram socket (`output unix PATH`).
package receive

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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
	*unixsocket.Keeper
	path      string
	mu        sync.Mutex // guards conn and told
	conn      *net.UnixConn
	readers   sync.WaitGroup
	records   chan trace.Record
	servers   chan Server
	told      map[Server]time.Time // when
	received  atomic.Uint64
	malformed atomic.Uint64
	dropped   atomic.Uint64
	lastError atomic.Pointer[error]
	close     func() error
}

// Stats counts records. All only grow.
type Stats struct {
	Received  uint64
	Malformed uint64 // lines that were no record
	Dropped   uint64 // not taken in time by the pipeline
}

// Listen binds the socket at path, in a directory that it makes if need be, and
// starts to read. It takes the place of a socket that nobody reads any more.
// The caller must close the receiver, and should let its Keeper run.
func Listen(path string) (*Receiver, error) {
	r := &Receiver{path: path, records: make(chan trace.Record, queued), servers: make(chan Server, maxServers), told: map[Server]time.Time{}}
	r.close = sync.OnceValue(r.end)
	var err error
	if r.Keeper, err = unixsocket.Keep(path, r.bind); err != nil {
		return nil, errors.Join(fmt.Errorf("record socket: %w", err), r.retire(nil))
	}
	return r, nil
}

// bind opens a socket at the path, and reads from it in the place of the one before.
func (r *Receiver) bind() error {
	if err := unixsocket.Prepare("unixgram", r.path, "--listen"); err != nil {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	// A smaller buffer than asked for loses records sooner, and the plugin
	// counts what it could not send.
	_ = conn.SetReadBuffer(receiveBuffer)
	if err := passCredentials(conn); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := os.Chmod(r.path, socketMode); err != nil {
		return errors.Join(err, conn.Close())
	}
	r.readers.Go(func() { r.read(conn) })
	return r.retire(conn)
}

// retire lets the next socket take the place of the one that there is. Who sends to
// that learns it at once (EPIPE), and what was sent before is read.
func (r *Receiver) retire(next *net.UnixConn) error {
	r.mu.Lock()
	before := r.conn
	r.conn = next
	r.mu.Unlock()
	if before == nil {
		return nil
	}
	return errors.Join(before.CloseRead(), before.SetReadDeadline(time.Now()))
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

// Close removes the socket. What was sent before is delivered still.
func (r *Receiver) Close() error { return r.close() }

func (r *Receiver) end() error {
	// Gone before it is closed, so that a new tracer's socket is not removed.
	err := errors.Join(r.Remove(), r.retire(nil))
	go func() {
		r.readers.Wait()
		close(r.records)
	}()
	return err
}

// read takes datagrams until the socket is retired, then those that are left.
func (r *Receiver) read(conn *net.UnixConn) {
	defer conn.Close()
	buf, oob := make([]byte, maxDatagram), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, control, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			break
		}
		r.datagram(buf[:n], senderOf(oob[:control]))
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { r.rest(int(fd), buf) })
	}
	if err != nil {
		r.lastError.Store(&err)
	}
}

// rest reads what the kernel still holds.
func (r *Receiver) rest(fd int, buf []byte) {
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		default:
			r.datagram(buf[:n], 0)
		}
	}
}

func (r *Receiver) datagram(b []byte, pid int) {
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
		if q, ok := rec.(*trace.Query); ok {
			r.serves(q, pid)
		}
		select {
		case r.records <- rec:
		default:
			r.dropped.Add(1)
		}
	}
}
