package receive

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

func line(kind string) []byte {
	head := trace.Header{Time: time.Now(), TraceID: trace.TraceID{1}, Flow: trace.Flow{1}}
	if kind == trace.KindTrace {
		return append((&trace.Trace{Header: head}).AppendJSON(nil), '\n')
	}
	return append((&trace.Query{Header: head, DNS: trace.DNS{QName: "example.com."}}).AppendJSON(nil), '\n')
}

func TestReceive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "records.sock")
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	datagram := append(line(trace.KindQuery), line(trace.KindQuery)...)
	datagram = append(datagram, "nonsense\n"...)
	datagram = append(datagram, line(trace.KindTrace)...)
	if _, err := conn.Write(datagram); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case rec := <-r.Records():
			if rec.Kind() != trace.KindQuery {
				t.Errorf("%s", rec.Kind())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no record")
		}
	}
	for end := time.Now().Add(10 * time.Second); r.Stats().Refused[ReasonMalformed] < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := r.Stats(); got.Received != 2 || got.Refused[ReasonMalformed] != 2 || len(got.Refused) != 1 {
		t.Errorf("%+v", got)
	}
	if err := r.LastError(); err == nil || !strings.Contains(err.Error(), "not trace") {
		t.Errorf("last error %v", err)
	}

	if _, err := Listen(path, unixsocket.Mine); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second reader: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-r.Records(); open {
		t.Error("records after Close")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	dead, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, unixsocket.Mine); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("%v", err)
	}
}

// read is how many records were read, whether they were taken or not.
func (s Stats) read() uint64 {
	all := s.Received
	for _, n := range s.Refused {
		all += n
	}
	return all
}

// wait waits until a number of records was read.
func wait(t *testing.T, r *Receiver, records uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); r.Stats().read() < records; {
		if time.Now().After(end) {
			t.Fatalf("%d records, expected %d", r.Stats().read(), records)
		}
		time.Sleep(time.Millisecond)
	}
}

// Somebody removes the socket while a plugin is connected: what was sent is read, the
// plugin learns at its next datagram that it has to look for the path, and nothing is
// lost.
func TestSocketRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	go r.Run(t.Context(), func(string) {})
	sent := uint64(0)
	for range 3 {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		rebound := r.State().Rebound
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); ; sent++ {
			_, err := conn.Write(line(trace.KindQuery))
			// The second is what it gets once the old socket is read empty and closed.
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNREFUSED) {
				break
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("%d sent: %v", sent, err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); r.State().Rebound == rebound && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	wait(t, r, sent)
	if got := r.State(); got.Rebound != 3 || got.Err != nil {
		t.Errorf("%+v", got)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// What was sent before the end is delivered before the channel is closed.
func TestCloseDelivers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const records = 300
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; n < records; n++ {
			if _, err := conn.Write(line(trace.KindQuery)); err != nil {
				break // closed already
			}
		}
		sent <- n
	}()
	wait(t, r, 1)
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range r.Records() {
		n++
	}
	if want := <-sent; n != want {
		t.Errorf("%d records delivered of %d", n, want)
	}
}

// A process that reaches the socket may send anything: each line is a record or is refused
// and counted.
func FuzzDatagram(f *testing.F) {
	f.Add(slices.Concat(line(trace.KindQuery), []byte("\n\r\n nonsense\n"), line(trace.KindTrace)))
	f.Add(line(trace.KindQuery)[:20])
	f.Add([]byte(`{"v":1,"record":"query","hops":[{"parent":0},{"parent":99999999}],"upstreams":[{"attempt":-1}],"duration_seconds":1e308}`))
	f.Add([]byte(strings.Repeat(`{"record":`, 10_000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReceiver(1)
		r.senders.of = func(pid int, uid uint32) peer.Process { return peer.Process{PID: pid, UID: uid} }
		r.datagram(b, 0, origin{pid: 1, came: time.Unix(1, 0)})
		lines := uint64(0)
		for l := range bytes.Lines(b) {
			if len(bytes.TrimSpace(l)) > 0 {
				lines++
			}
		}
		if lines == 0 {
			lines = 1 // it is refused
		}
		got := r.Stats()
		if got.Refused[ReasonRate] == 0 && got.read() != lines || got.Received > 1 || got.read() > got.Received && r.LastError() == nil {
			t.Errorf("%d lines: %+v, %v", lines, got, r.LastError())
		}
		if r.waiting.Load() < 0 || r.waiting.Load() > queuedBytes {
			t.Errorf("%d bytes wait", r.waiting.Load())
		}
	})
}
