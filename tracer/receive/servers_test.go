package receive

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// A record reports its server, but not one whose packets show no DNS, nor one that was
// reported a moment ago.
func TestServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	addr := netip.MustParseAddr("10.244.0.2")
	query := func(protocol string, id uint16, ip netip.Addr, port uint16) []byte {
		q := &trace.Query{Header: trace.Header{Time: time.Now(), TraceID: trace.TraceID{1}, Flow: trace.Flow{1}},
			DNS: trace.DNS{QName: "example.com.", Protocol: protocol, ID: id}, ServerIP: ip, ServerPort: port}
		return append(q.AppendJSON(nil), '\n')
	}
	for _, b := range [][]byte{
		query("udp", 1, addr, 5353),
		query("udp", 2, addr, 5353), // again
		query("tcp", 1, addr, 8053), // as over TLS
		query("udp", 0, addr, 8853), // as over QUIC
		query("udp", 1, addr, 443), query("udp", 1, addr, 853),
		query("udp", 1, addr, 0),
		query("udp", 1, netip.Addr{}, 5354),
	} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []uint16{5353, 5354} {
		select {
		case got := <-r.Servers():
			if got != (Server{PID: os.Getpid(), Port: want}) {
				t.Errorf("got %+v, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no server")
		}
	}
	if n := len(r.Servers()); n != 0 {
		t.Errorf("%d servers more", n)
	}
	// Some time later, it is reported again.
	r.mu.Lock()
	for s := range r.reported {
		r.reported[s] = time.Now().Add(-reportEvery)
	}
	r.mu.Unlock()
	if _, err := conn.Write(query("udp", 3, addr, 5353)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Servers():
	case <-time.After(10 * time.Second):
		t.Fatal("not reported again")
	}
}
