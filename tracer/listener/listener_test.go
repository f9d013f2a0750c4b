package listener

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

const netns = 4026531840

var begin = time.Unix(1000, 0)

type names map[uint64]string

func (n names) Cgroup(id uint64) (path, container string) { return n[id], "" }

// arrived is an exchange whose query came to an address.
func arrived(dst string) *trace.Exchange {
	ex := &trace.Exchange{Outcome: trace.OutcomeUnanswered}
	ex.Time, ex.Protocol = begin, "udp"
	to := netip.MustParseAddrPort(dst)
	ex.Path = trace.PathOf(
		trace.Sighting{Message: trace.MessageQuery, Device: trace.Device{NetNS: 1}, Direction: trace.DirectionTX, Dst: to},
		trace.Sighting{Message: trace.MessageQuery, Device: trace.Device{NetNS: netns}, Direction: trace.DirectionRX, Dst: to, Offset: trace.Seconds(time.Millisecond)},
		trace.Sighting{Message: trace.MessageQuery, Device: trace.Device{NetNS: netns + 1}, Direction: trace.DirectionDelivered, Dst: to, Offset: trace.Seconds(time.Millisecond)},
	)
	ex.Milestones.Query = trace.Progress{Left: trace.MilestoneAt(0), Arrived: trace.MilestoneAt(1)}
	return ex
}

func at(addr string, pid int) socket {
	return socket{addr: netip.MustParseAddr(addr), pid: pid, comm: "named", cgroup: 7, started: begin.Add(-time.Hour)}
}

func TestServer(t *testing.T) {
	only6 := at("::", 5)
	only6.v6only = true
	young := at("0.0.0.0", 6)
	young.started = begin.Add(2 * time.Millisecond)
	elsewhere := at("0.0.0.0", 9)
	elsewhere.cgroup = 8
	named := trace.Endpoint{Process: "named", PID: 5, Cgroup: "/dns"}
	for _, tc := range []struct {
		name   string
		dst    string
		open   []socket
		change func(*trace.Exchange)
		want   *trace.Endpoint
	}{
		{"its address", "10.0.0.1:53", []socket{at("10.0.0.1", 5)}, nil, &named},
		{"any address", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, nil, &named},
		{"any address of both families", "10.0.0.1:53", []socket{at("::", 5)}, nil, &named},
		{"IPv6", "[2001:db8::1]:53", []socket{at("::", 5)}, nil, &named},
		{"its address before any", "10.0.0.1:53", []socket{at("0.0.0.0", 9), at("10.0.0.1", 5)}, nil, &named},
		{"no IPv4", "10.0.0.1:53", []socket{only6}, nil, nil},
		{"no IPv6", "[2001:db8::1]:53", []socket{at("0.0.0.0", 5)}, nil, nil},
		{"another address", "10.0.0.1:53", []socket{at("10.0.0.2", 5)}, nil, nil},
		{"nobody", "10.0.0.1:53", nil, nil, nil},
		{"two sockets of one", "10.0.0.1:53", []socket{at("0.0.0.0", 5), at("0.0.0.0", 5)}, nil, &named},
		{"two processes of one cgroup", "10.0.0.1:53", []socket{at("0.0.0.0", 5), at("0.0.0.0", 6)}, nil, &trace.Endpoint{Cgroup: "/dns"}},
		{"two of different cgroups", "10.0.0.1:53", []socket{at("0.0.0.0", 5), elsewhere}, nil, nil},
		{"a process younger than the query", "10.0.0.1:53", []socket{young}, nil, nil},
		{"its cgroup is known", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) {
			ex.Server = &trace.Endpoint{Cgroup: "/dns"}
		}, &named},
		{"another cgroup than the socket's", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) {
			ex.Server = &trace.Endpoint{Cgroup: "/web"}
		}, &trace.Endpoint{Cgroup: "/web"}},
		{"full buffer", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) {
			ex.Outcome, ex.Milestones.Query.Arrived = trace.OutcomeDropped, trace.NotSeen
			ex.Drops = []trace.Drop{{Description: "receive buffer full", NetNS: netns, Offset: trace.Seconds(time.Millisecond)}}
			ex.Path = trace.PathOf(ex.Path.At(0), ex.Path.At(1))
		}, &named},
		{"dropped before", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) {
			ex.Outcome, ex.Drops = trace.OutcomeDropped, []trace.Drop{{Description: "netfilter hook INPUT", NetNS: netns}}
		}, nil},
		{"not seen to arrive", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) { ex.Milestones.Query.Arrived = trace.NotSeen }, nil},
		{"arrival is not observable", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) { ex.Milestones.Query.Arrived = trace.NotObservable }, nil},
		{"in another namespace", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) { ex.Milestones.Query.Arrived = trace.MilestoneAt(2) }, nil},
		{"over TCP", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) { ex.Protocol = "tcp" }, nil},
		{"answered", "10.0.0.1:53", []socket{at("0.0.0.0", 5)}, func(ex *trace.Exchange) { ex.Outcome = trace.OutcomeAnswered }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &Sockets{names: names{7: "/dns"}, now: func() time.Time { return begin.Add(5 * time.Second) },
				look: func() (map[place][]socket, error) { return map[place][]socket{{netns, 53}: tc.open}, nil }}
			ex := arrived(tc.dst)
			if tc.change != nil {
				tc.change(ex)
			}
			s.Exchange(ex)
			if (ex.Server == nil) != (tc.want == nil) || tc.want != nil && *ex.Server != *tc.want {
				t.Errorf("%+v, expected %+v", ex.Server, tc.want)
			}
		})
	}
}

// One look serves all queries that were sent before it, and looks take no more
// than their share of the time.
func TestLooksAreFew(t *testing.T) {
	now, looks := begin.Add(5*time.Second), 0
	const takes = 200 * time.Millisecond
	var fails error
	s := &Sockets{now: func() time.Time { return now }}
	s.look = func() (map[place][]socket, error) {
		looks++
		now = now.Add(takes)
		return map[place][]socket{{netns, 53}: {at("0.0.0.0", 5)}}, fails
	}
	known := func(sent time.Time) bool {
		ex := arrived("10.0.0.1:53")
		ex.Time = sent
		s.Exchange(ex)
		return ex.Server != nil
	}
	for range 100 {
		if !known(begin) {
			t.Fatal("not known")
		}
	}
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
	if known(now) || looks != 1 {
		t.Errorf("looked again at once: %d looks", looks)
	}
	now = now.Add(restShare * takes)
	if !known(now.Add(-time.Second)) || looks != 2 {
		t.Errorf("never looked again: %d looks", looks)
	}
	now, fails = now.Add(time.Hour), errors.New("not permitted")
	if known(now.Add(-time.Second)) {
		t.Error("known by a look that failed")
	}
}

// Sockets of this process, as the kernel tells of them.
func TestLook(t *testing.T) {
	if !Supported() {
		t.Logf("nothing to test with: %+v", Probe())
		return
	}
	s, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ network, address string }{
		{"udp4", "127.0.0.1:0"}, {"udp4", "0.0.0.0:0"}, {"udp6", "[::1]:0"}, {"udp6", "[::]:0"}, {"udp", ":0"},
	} {
		conn, err := net.ListenPacket(tc.network, tc.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		client, err := net.Dial(tc.network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9).String())
		if err == nil { // a socket with a peer takes nobody else's queries
			defer client.Close()
		}
		found, err := s.readAll()
		if err != nil {
			t.Fatal(err)
		}
		own := found[place{uint32(st.Ino), local.Port()}]
		if len(own) != 1 {
			t.Errorf("%s %s: %+v", tc.network, tc.address, own)
			continue
		}
		c := own[0]
		if c.addr.Unmap() != local.Addr().Unmap() || c.pid != os.Getpid() || c.comm == "" || c.v6only != (tc.network == "udp6") {
			t.Errorf("%s %s: %+v", tc.network, tc.address, c)
		}
		if age := time.Since(c.started); age < 0 || age > time.Duration(capture.Now()) {
			t.Errorf("%s %s: the process is %s old", tc.network, tc.address, age)
		}
		if client != nil {
			if own := found[place{uint32(st.Ino), client.LocalAddr().(*net.UDPAddr).AddrPort().Port()}]; len(own) != 0 {
				t.Errorf("a client is reported as a server: %+v", own)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, 3*listeningBytes+1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := 0
		for _, sockets := range parse(raw, begin) {
			n += len(sockets)
		}
		if n != len(raw)/listeningBytes {
			t.Errorf("%d sockets of %d bytes", n, len(raw))
		}
	})
}

// A process is found by its port, whatever address it has bound; nobody else is.
func TestBound(t *testing.T) {
	s := &Sockets{now: func() time.Time { return begin }}
	s.look = func() (map[place][]socket, error) {
		return map[place][]socket{
			{7, 5353}: {at("10.0.0.1", 5), at("::", 5)},
			{6, 5353}: {at("0.0.0.0", 5)},
			{8, 5353}: {at("0.0.0.0", 9)},
			{9, 5353}: {at("10.0.0.1", 5)},
			{7, 53}:   {at("::", 5)},
		}, nil
	}
	for _, tc := range []struct {
		pid  int
		port uint16
		want []uint32
	}{{5, 5353, []uint32{6, 7, 9}}, {9, 5353, []uint32{8}}, {9, 53, nil}, {1, 5353, nil}} {
		if got := s.Bound(tc.pid, tc.port); !slices.Equal(got, tc.want) {
			t.Errorf("process %d, port %d: namespaces %v, want %v", tc.pid, tc.port, got, tc.want)
		}
	}
	if !s.Holds(9, 5353) || s.Holds(9, 53) || s.Holds(0, 5353) {
		t.Error("the holder of port 5353 is not found")
	}
	if got := (*Sockets)(nil).Bound(5, 5353); got != nil {
		t.Errorf("nobody knows %v", got)
	}
}
