package receive

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func line(kind string) []byte {
	head := trace.Header{Time: time.Unix(1, 0), TraceID: trace.TraceID{1}, Flow: trace.Flow{1}}
	if kind == trace.KindTrace {
		return append((&trace.Trace{Header: head}).AppendJSON(nil), '\n')
	}
	return append((&trace.Query{Header: head}).AppendJSON(nil), '\n')
}

func TestReceive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "records.sock")
	r, err := Listen(path)
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
	for end := time.Now().Add(10 * time.Second); r.Stats().Malformed < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := r.Stats(); got.Received != 2 || got.Malformed != 2 || got.Dropped != 0 {
		t.Errorf("%+v", got)
	}
	if err := r.LastError(); err == nil || !strings.Contains(err.Error(), "not trace") {
		t.Errorf("last error %v", err)
	}

	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "in use") {
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
	r, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("%v", err)
	}
}
