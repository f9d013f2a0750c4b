package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// arrivalWays are the ways to packets at sockets that this machine has: the program of
// the root cgroup wants that to be mounted.
func arrivalWays() map[string]arrivalWay {
	ways := map[string]arrivalWay{"tracepoints": arrivalTracepoints}
	if s, err := open(Config{Ports: []uint16{dport}, RingBytes: 1 << 16}, kernelPayloadAccess(), arrivalCgroup); err == nil {
		ways["cgroup"] = arrivalCgroup
		_ = s.Close()
	}
	return ways
}

// openAt opens a source that sees packets at sockets one way.
func openAt(t *testing.T, way arrivalWay, port uint16) *Source {
	t.Helper()
	source, err := open(Config{Ports: []uint16{port}}, kernelPayloadAccess(), way)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	return source
}

// boundUDP returns a UDP socket on loopback, and its address.
func boundUDP(t *testing.T, family int, addr string) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	// What does not come fails the test, and does not stop it.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(netip.MustParseAddr(addr), 0))); err != nil {
		t.Fatal(err)
	}
	return fd, localOf(t, fd)
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	return &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
}

func localOf(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	local, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch a := local.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	t.Fatalf("a socket at %v", local)
	return netip.AddrPort{}
}

// ofKind returns the packets of a kind.
func ofKind(packets []Packet, kind Kind) (some []Packet) {
	for _, p := range packets {
		if p.Kind == kind {
			some = append(some, p)
		}
	}
	return some
}

// withID is a query with an ID.
func withID(id int) []byte {
	return append(be(2, uint64(id)), query[2:]...)
}

// A query and its response, each delivered and read: where, by whom, in this order.
func TestDeliveredAndRead(t *testing.T) {
	for name, way := range arrivalWays() {
		for _, tc := range []struct {
			name, listens, asks string
			family              int // of the server's socket
			connected           bool
		}{
			{"IPv4", "127.0.0.1", "127.0.0.1", unix.AF_INET, true},
			{"IPv6", "::1", "::1", unix.AF_INET6, true},
			{"IPv4 at a socket of both", "::", "127.0.0.1", unix.AF_INET6, true},
			// As musl's resolver asks.
			{"not connected", "127.0.0.1", "127.0.0.1", unix.AF_INET, false},
		} {
			t.Run(name+", "+tc.name, func(t *testing.T) {
				serverFD, bound := boundUDP(t, tc.family, tc.listens)
				server := netip.AddrPortFrom(netip.MustParseAddr(tc.asks), bound.Port())
				family := unix.AF_INET
				if server.Addr().Is6() {
					family = unix.AF_INET6
				}
				clientFD, client := boundUDP(t, family, tc.asks)
				source := openAt(t, way, server.Port())
				if tc.connected {
					if err := unix.Connect(clientFD, sockaddr(server)); err != nil {
						t.Fatal(err)
					}
				}
				if err := unix.Sendto(clientFD, query, 0, sockaddr(server)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 512)
				n, from, err := unix.Recvfrom(serverFD, buf, 0)
				if err != nil {
					t.Fatal(err)
				}
				response := append(bytes.Clone(buf[:n]), "answer"...)
				response[2] |= 0x80
				if err := unix.Sendto(serverFD, response, 0, from); err != nil {
					t.Fatal(err)
				}
				if _, err := unix.Read(clientFD, buf); err != nil {
					t.Fatal(err)
				}
				packets := poll(t, source)
				wantAtSocket(t, source, packets, server, client, query, response)
			})
		}
	}
}

// wantAtSocket wants a query and its response to be delivered and read, as far as this
// kernel lets it be seen.
func wantAtSocket(t *testing.T, source *Source, packets []Packet, server, client netip.AddrPort, query, response []byte) {
	t.Helper()
	inode, err := inodeOf("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	o := source.Observes()
	for kind, seen := range map[Kind]bool{Delivered: o.DeliveredUDP, Read: o.ReadUDP} {
		got := ofKind(packets, kind)
		if !seen {
			if len(got) > 0 {
				t.Errorf("kind %d is not observable: %+v", kind, got)
			}
			continue
		}
		if len(got) != 2 {
			t.Fatalf("kind %d: %d packets, expected 2: %+v", kind, len(got), got)
		}
		for i, message := range [][]byte{query, response} {
			p, src, dst := got[i], client, server
			if i == 1 {
				src, dst = server, client
			}
			if p.Src != src || p.Dst != dst || p.Protocol != trace.TransportUDP || !bytes.Equal(p.Payload, message) || p.PayloadLen != len(message) {
				t.Errorf("%+v, expected %x from %s to %s", p, message, src, dst)
			}
			if p.Sock == 0 || p.NetNS != inode || p.IfIndex != 0 || p.IfName != "" || p.CgroupID != ownCgroup(t) && ownCgroup(t) != 0 {
				t.Errorf("at another place: %+v", p)
			}
			if kind == Read && (p.PID != os.Getpid() || p.Comm == "" || p.TID == 0) {
				t.Errorf("read by process %d %q, thread %d", p.PID, p.Comm, p.TID)
			}
			if d := ofKind(packets, Delivered)[i]; kind == Read && (d.Sock != p.Sock || d.SKB != p.SKB || p.Time < d.Time) {
				t.Errorf("read %+v\nof what was delivered %+v", p, d)
			}
		}
	}
}

// Segments at their sockets, and up to where the stream was read.
func TestDeliveredAndReadOverTCP(t *testing.T) {
	for name, way := range arrivalWays() {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			server := l.Addr().(*net.TCPAddr).AddrPort()
			source := openAt(t, way, server.Port())
			conn, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			message := pattern(700)
			buf := make([]byte, 400)
			if _, err := conn.Write(message); err != nil {
				t.Fatal(err)
			}
			for left := len(message); left > 0; {
				n, err := accepted.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				left -= n
			}
			packets := poll(t, source)
			client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			wantStream(t, source, packets, client, server, message)
		})
	}
}

func wantStream(t *testing.T, source *Source, packets []Packet, client, server netip.AddrPort, message []byte) {
	t.Helper()
	o := source.Observes()
	var segments []Packet
	for _, p := range ofKind(packets, Delivered) {
		if p.PayloadLen > 0 {
			segments = append(segments, p)
		}
	}
	if !o.DeliveredTCP || len(segments) != 1 {
		t.Fatalf("%+v: %d segments: %+v", o, len(segments), segments)
	}
	s := segments[0]
	if s.Src != client || s.Dst != server || !bytes.Equal(s.Payload, message) || s.PayloadLen != len(message) || s.IfIndex != 0 || s.Sock == 0 {
		t.Errorf("delivered %+v", s)
	}
	at := s.TCPSeq
	for _, p := range ofKind(packets, Read) {
		if p.Src != client || p.Dst != server || p.TCPSeq != at || p.Sock != s.Sock || p.PID != os.Getpid() {
			t.Errorf("read %+v, expected from %d on", p, at)
		}
		at += uint32(p.PayloadLen)
	}
	if o.ReadTCP && at != s.TCPSeq+uint32(len(message)) {
		t.Errorf("read up to %d, expected %d", at, s.TCPSeq+uint32(len(message)))
	}
}

// What a connection ends with, and who refuses one, is seen at devices.
func TestEndsOfConnections(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := l.Addr().(*net.TCPAddr)
	source, err := openDevices(Config{Ports: []uint16{uint16(server.Port)}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	conn, err := net.DialTCP("tcp4", nil, server)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.DialTCP("tcp4", nil, server); err == nil {
		conn.Close()
		t.Fatal("somebody listens")
	}
	ends, refusals := 0, 0
	for _, p := range ofKind(poll(t, source), RX) {
		switch {
		case p.TCPFlags&FlagRST != 0 && p.Src == server.AddrPort() && p.TCPFlags&FlagACK != 0:
			refusals++
		case p.TCPFlags&FlagFIN != 0 && p.Dst == server.AddrPort():
			ends++
		}
	}
	if ends == 0 || refusals == 0 {
		t.Errorf("%d ends, %d refusals", ends, refusals)
	}
}

// An event at which the memory is in use in which another one is put together, as when
// a softirq interrupts a program before Linux 6.1: lost and counted, and what is put
// together stays as it is.
func TestScratchInUse(t *testing.T) {
	fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
	clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
	source := openAt(t, arrivalBest, server.Port())
	busy := offsetIn(t, bpf.DnstraceMapScratches, "busy")
	setBusy := func(on uint32) {
		scratches := source.coll.Maps[bpf.DnstraceMapScratches]
		for slot := range scratches.MaxEntries() {
			var perCPU [][]byte
			if err := scratches.Lookup(slot, &perCPU); err != nil {
				t.Fatal(err)
			}
			for _, scratch := range perCPU {
				binary.NativeEndian.PutUint32(scratch[busy:], on)
			}
			if err := scratches.Put(slot, perCPU); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask := func() []Packet {
		if err := unix.Sendto(clientFD, query, 0, sockaddr(server)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(fd, make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		return poll(t, source)
	}
	free := ask()
	setBusy(1)
	if got := ask(); len(got) != 0 {
		t.Errorf("seen %+v", got)
	}
	if c := source.Counters(); c.Lost != uint64(len(free)) {
		t.Errorf("lost %d, expected %d", c.Lost, len(free))
	}
	lost := map[Kind]uint64{}
	for _, l := range source.Losses() {
		lost[l.Kind] += l.Events
	}
	for _, kind := range []Kind{TX, RX, Delivered, Read} {
		if want := uint64(len(ofKind(free, kind))); lost[kind] != want {
			t.Errorf("kind %d: lost %d, expected %d", kind, lost[kind], want)
		}
	}
	setBusy(0)
	// What was lost makes it report fewer lookups for a while, and then all again.
	for end := time.Now().Add(30 * time.Second); source.shedder.threshold != AllLookups; {
		if time.Now().After(end) {
			t.Fatalf("the threshold is still %d", source.shedder.threshold)
		}
		poll(t, source)
	}
	again := ask()
	for _, kind := range []Kind{TX, RX, Delivered, Read} {
		if got, want := len(ofKind(again, kind)), len(ofKind(free, kind)); got != want {
			t.Errorf("kind %d: seen %d times, before %d", kind, got, want)
		}
	}
}

// offsetIn returns where a field of the values of a map is.
func offsetIn(t *testing.T, name, field string) int {
	t.Helper()
	spec, err := bpf.LoadDnstrace()
	if err != nil {
		t.Fatal(err)
	}
	layout, ok := spec.Maps[name].Value.(*btf.Struct)
	if !ok {
		t.Fatalf("%s has values of %v", name, spec.Maps[name].Value)
	}
	for _, m := range layout.Members {
		if m.Name == field {
			return int(m.Offset.Bytes())
		}
	}
	t.Fatalf("%v has no %s", layout, field)
	return 0
}

// Programs that a kernel refuses are left out step by step, and the source goes on: the
// packets at devices are worth seeing.
func TestWithoutSockets(t *testing.T) {
	spec, err := bpf.LoadDnstrace()
	if err != nil {
		t.Fatal(err)
	}
	all := len(spec.Programs)
	for _, want := range []int{all - 1, all - 1 - len(socketTracepoints)} {
		if !withoutSockets(spec) || len(spec.Programs) != want {
			t.Errorf("%d programs are left, expected %d", len(spec.Programs), want)
		}
	}
	if withoutSockets(spec) {
		t.Error("something was left to remove")
	}
	s := Source{coll: &ebpf.Collection{}, socketErr: errors.New("refused")}
	if o := s.Observes(); o != (Observes{}) {
		t.Errorf("%+v", o)
	}
	for _, f := range []Finding{probeArrival(&s), probeReading(&s)} {
		if f.OK || f.Required || !strings.Contains(f.Detail, "refused") || f.Lost == "" || f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	}
}
