// Package receive takes the records that the CoreDNS plugin sends over a unix
// datagram socket (`output unix PATH`).
//
// A process that may write to the socket may send anything. What a record cannot be, what
// is too large and what is too much is refused and counted by reason; of the rest the
// kernel says who sent it. Whether that is the server that the record names is for
// assembly to decide, which knows the packets.
package receive

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// DefaultPath is the default path of the record socket.
const DefaultPath = "/run/dnstrace/records.sock"

// maxDatagram bounds a datagram: the plugin puts at most 60 KiB into one, and none of its
// records is larger.
const maxDatagram = 64 << 10

// receiveBuffer is asked of the kernel: some 4,000 records between two readings.
// The kernel grants at most net.core.rmem_max.
const receiveBuffer = 8 << 20

// Bounds of what waits for the pipeline: a second of a busy node, and no more memory than
// this whatever the records contain.
const (
	queued      = 16384
	queuedBytes = 16 << 20
)

// Why records are refused. Those of a datagram that is refused unread are counted by its
// lines.
const (
	ReasonMalformed = "malformed" // a line that is no record of a plugin
	ReasonSize      = "size"      // in a datagram of more than 64 KiB
	ReasonField     = "field"     // a field or list is longer than any that the plugin makes, or no name
	ReasonTime      = "time"      // it is not of now
	ReasonDuration  = "duration"  // something in it lasts, or begins, as nothing can
	ReasonRate      = "rate"      // its sender sends too much
	ReasonQueue     = "queue"     // it was not taken in time
)

// Reasons are all of them.
var Reasons = []string{ReasonMalformed, ReasonSize, ReasonField, ReasonTime, ReasonDuration, ReasonRate, ReasonQueue}

// Receiver reads records from a socket.
type Receiver struct {
	*unixsocket.Keeper
	path     string
	owner    unixsocket.Owner
	mu       sync.Mutex // guards conn, reported and refused
	conn     *net.UnixConn
	readers  sync.WaitGroup
	senders  *senders
	records  chan Record
	waiting  atomic.Int64 // bytes of records
	servers  chan Server
	reported map[Server]time.Time // when

	received  atomic.Uint64
	refused   map[string]uint64 // by reason
	lastError atomic.Pointer[error]
	close     func() error
}

// Record is a record and who sent it.
type Record struct {
	trace.Record
	From  peer.Process
	bytes int64
	of    *Receiver
}

// Taken makes room for another record. It is called once.
func (r Record) Taken() {
	if r.of != nil { // else it did not wait
		r.of.waiting.Add(-r.bytes)
	}
}

// Stats counts records. All only grow.
type Stats struct {
	Received uint64            // that were taken
	Refused  map[string]uint64 // by reason
}

// Listen binds the socket at path, in a directory that it creates if necessary, and starts
// to read. It replaces a stale socket. The caller must close the receiver, and should run
// its Keeper.
func Listen(path string, owner unixsocket.Owner) (*Receiver, error) {
	r := newReceiver(queued)
	r.path, r.owner = path, owner
	var err error
	if r.Keeper, err = unixsocket.Keep(path, r.bind); err != nil {
		return nil, errors.Join(fmt.Errorf("record socket: %w", err), r.retire(nil))
	}
	return r, nil
}

func newReceiver(records int) *Receiver {
	r := &Receiver{records: make(chan Record, records), servers: make(chan Server, maxServers), reported: map[Server]time.Time{},
		refused: map[string]uint64{}, senders: newSenders()}
	r.close = sync.OnceValue(r.end)
	return r
}

// bind opens a socket at the path, and reads from it in the place of the one before.
func (r *Receiver) bind() error {
	conn, err := unixsocket.ListenPacket(r.path, "--listen", r.owner, setOptions)
	if err != nil {
		return err
	}
	// A smaller buffer than asked for loses records sooner, and the plugin
	// counts what it could not send.
	_ = conn.SetReadBuffer(receiveBuffer)
	return r.start(conn)
}

// start reads from a socket, in the place of the one before.
func (r *Receiver) start(conn *net.UnixConn) error {
	r.readers.Go(func() { r.read(conn) })
	return r.retire(conn)
}

// retire replaces the current socket by the next. A sender to the old one gets EPIPE at
// once, and what was sent before is read.
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

// Records delivers the records; the receiver must call Taken on each. It is closed after
// Close.
func (r *Receiver) Records() <-chan Record { return r.records }

// Queued returns how many records wait to be taken.
func (r *Receiver) Queued() int { return len(r.records) }

// Shows says that packets show a process, or, where that is unknown (0), its cgroup, as a
// server: it may send more than others.
func (r *Receiver) Shows(pid int, cgroup string) { r.senders.shows(pid, cgroup) }

// Stats returns the counters.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{Received: r.received.Load(), Refused: maps.Clone(r.refused)}
}

// LastError returns why the last record was refused, or nil.
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

// leastLine is the minimum that a line counts for: refusing a short one takes as long as some
// hundred bytes of a record.
const leastLine = 256

// datagram parses the records of a datagram. A datagram that is refused as a whole is not
// parsed.
func (r *Receiver) datagram(b []byte, flags int, from origin) {
	lines := bytes.Count(b, []byte{'\n'})
	who, may := r.senders.take(from, max(len(b), leastLine*(lines+1)))
	switch {
	case flags&unix.MSG_TRUNC != 0:
		r.refuse(ReasonSize, uint64(max(1, lines)), fmt.Errorf("a datagram of more than %d bytes, from %s", maxDatagram, from))
		return
	case !may:
		r.refuse(ReasonRate, uint64(max(1, lines)), fmt.Errorf("too many records from %s", from))
		return
	}
	empty := true
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			r.line(line, who, from)
			empty = false
		}
	}
	if empty {
		r.refuse(ReasonMalformed, 1, fmt.Errorf("a datagram without a record, from %s", from))
	}
}

func (r *Receiver) line(line []byte, who peer.Process, from origin) {
	rec, err := trace.Decode(line)
	if err == nil {
		err = check(rec, from.came)
	}
	if err != nil {
		r.refuse(reasonOf(err), 1, fmt.Errorf("%w, from %s", err, from))
		return
	}
	taken := Record{rec, who, sizeOf(rec), r}
	if r.waiting.Add(taken.bytes) > queuedBytes {
		taken.Taken()
		r.refuse(ReasonQueue, 1, errQueue)
		return
	}
	select {
	case r.records <- taken:
		r.received.Add(1)
		if q, ok := rec.(*trace.Query); ok {
			r.reportServer(q, who.PID)
		}
	default:
		taken.Taken()
		r.refuse(ReasonQueue, 1, errQueue)
	}
}

// errQueue is why a record that waited is refused.
var errQueue = errors.New("too many records wait to be taken")

func (r *Receiver) refuse(reason string, records uint64, err error) {
	r.lastError.Store(&err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[reason] += records
}
