package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// arrivalWays are the ways to packets at sockets that this machine has: the program of
// the root cgroup wants that to be mounted.
func arrivalWays() map[string]arrivalWay {
	ways := map[string]arrivalWay{"tracepoints": arrivalTracepoints}
	if s, err := open(Config{Ports: []uint16{dport}, RingBytes: 1 << 16}, wayOfKernel(), arrivalCgroup); err == nil {
		ways["cgroup"] = arrivalCgroup
		_ = s.Close()
	}
	return ways
}

// openAt opens a source that sees packets at sockets one way.
func openAt(t *testing.T, way arrivalWay, port uint16) *Source {
	t.Helper()
	source, err := open(Config{Ports: []uint16{port}}, wayOfKernel(), way)
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

// readers are the system calls by which a process gets a datagram; anonymous ones do not
// tell where they put it.
var readers = []struct {
	name      string
	anonymous bool
	read      func(fd int, buf []byte) (int, error)
}{
	{"recvfrom", false, func(fd int, buf []byte) (int, error) {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		return n, err
	}},
	{"recvfrom with too little room", false, func(fd int, buf []byte) (int, error) {
		n, _, err := unix.Recvfrom(fd, buf[:15], 0)
		return n, err
	}},
	{"recvfrom that tells the true length", false, func(fd int, buf []byte) (int, error) {
		n, _, err := unix.Recvfrom(fd, buf[:15], unix.MSG_TRUNC)
		return n, err
	}},
	{"recvfrom behind a look", false, func(fd int, buf []byte) (int, error) {
		if _, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK); err != nil {
			return 0, err
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		return n, err
	}},
	{"recvmsg", false, func(fd int, buf []byte) (int, error) {
		n, _, _, _, err := unix.Recvmsg(fd, buf, make([]byte, 128), 0)
		return n, err
	}},
	{"read", false, unix.Read},
	{"readv", false, func(fd int, buf []byte) (int, error) { return unix.Readv(fd, [][]byte{buf[:20], buf[20:]}) }},
	{"recvmmsg", true, recvmmsg},
}

// recvmmsg receives at most two datagrams, and waits for no more than the first.
func recvmmsg(fd int, buf []byte) (int, error) {
	type message struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	messages := [2]message{}
	for i := range messages {
		messages[i].header.Iov = &iov
		messages[i].header.SetIovlen(1)
	}
	_, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages)), uintptr(len(messages)), unix.MSG_WAITFORONE, 0, 0)
	runtime.KeepAlive(&iov)
	if errno != 0 {
		return 0, errno
	}
	return int(messages[0].length), nil
}

// Every way to read is seen once, and tied to the datagram that was read.
func TestReaders(t *testing.T) {
	for name, way := range arrivalWays() {
		fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
		clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
		source := openAt(t, way, server.Port())
		if !source.Observes().ReadUDP {
			continue
		}
		buf := make([]byte, 512)
		for i, r := range readers {
			if err := unix.Sendto(clientFD, withID(i), 0, sockaddr(server)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.read(fd, buf); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			want := 1
			if r.anonymous && !source.exact() {
				want = 0
			}
			got := ofKind(poll(t, source), Read)
			if len(got) != want {
				t.Errorf("%s, %s: %d reads, expected %d: %+v", name, r.name, len(got), want, got)
			}
			for _, p := range got {
				if !bytes.Equal(p.Payload, withID(i)) || p.PayloadLen != len(query) {
					t.Errorf("%s, %s: %+v", name, r.name, p)
				}
			}
		}
	}
}

// A queue that is read late and not in order of length: each read is that of its own
// datagram, the same query twice among them, and what nobody reads is not read.
func TestQueueIsReadInOrder(t *testing.T) {
	for name, way := range arrivalWays() {
		fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
		clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
		source := openAt(t, way, server.Port())
		o := source.Observes()
		messages := [][]byte{withID(1), append(withID(2), "more"...), withID(3), withID(3), withID(4)}
		for _, m := range messages {
			if err := unix.Sendto(clientFD, m, 0, sockaddr(server)); err != nil {
				t.Fatal(err)
			}
		}
		delivered := ofKind(poll(t, source), Delivered)
		if o.DeliveredUDP && len(delivered) != len(messages) {
			t.Fatalf("%s: %d delivered: %+v", name, len(delivered), delivered)
		}
		buf := make([]byte, 512)
		for range len(messages) - 1 {
			if _, err := unix.Read(fd, buf); err != nil {
				t.Fatal(err)
			}
		}
		read := ofKind(poll(t, source), Read)
		if o.ReadUDP && len(read) != len(messages)-1 {
			t.Fatalf("%s: %d read: %+v", name, len(read), read)
		}
		for i, p := range read {
			if p.SKB != delivered[i].SKB || !bytes.Equal(p.Payload, messages[i]) {
				t.Errorf("%s: read %d is %+v", name, i, p)
			}
		}
	}
}

// A receive buffer that is full: what finds no room is dropped, and what is read later
// is what found some.
func TestReadBehindAFullBuffer(t *testing.T) {
	for name, way := range arrivalWays() {
		fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
		clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Fatal(err)
		}
		source := openAt(t, way, server.Port())
		const sent = 20
		for id := range sent {
			if err := unix.Sendto(clientFD, withID(id), 0, sockaddr(server)); err != nil {
				t.Fatal(err)
			}
		}
		packets := poll(t, source)
		dropped := len(ofKind(packets, Drop))
		if dropped == 0 || dropped >= sent {
			t.Fatalf("%s: %d of %d were dropped", name, dropped, sent)
		}
		buf := make([]byte, 512)
		for range sent - dropped {
			if _, err := unix.Read(fd, buf); err != nil {
				t.Fatal(err)
			}
		}
		if !source.Observes().ReadUDP {
			continue
		}
		read := ofKind(poll(t, source), Read)
		if len(read) != sent-dropped || source.unread.count != 0 {
			t.Fatalf("%s: %d read of %d, %d left", name, len(read), sent-dropped, source.unread.count)
		}
		for id, p := range read {
			if !bytes.Equal(p.Payload, withID(id)) {
				t.Errorf("%s: read %d is %+v", name, id, p)
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
	for end := time.Now().Add(30 * time.Second); source.shedder.share != WholeShare; {
		if time.Now().After(end) {
			t.Fatalf("the share is still %d", source.shedder.share)
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

// Several senders at once: whatever is missing, no read is tied to another datagram than
// the one that was read, and each that was delivered is one that its sender sent.
func TestReadsUnderLoad(t *testing.T) {
	const senders, each = 3, 3000
	for name, way := range arrivalWays() {
		fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
		source := openAt(t, way, server.Port())
		var sending errgroup.Group
		sender := map[netip.AddrPort]int{}
		for s := range senders {
			clientFD, local := boundUDP(t, unix.AF_INET, "127.0.0.1")
			sender[local] = s
			sending.Go(func() error {
				for i := range each {
					if err := unix.Sendto(clientFD, numberedQuery(s, s*each+i), 0, sockaddr(server)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		got := make(chan int, senders*each)
		go func() {
			defer close(got)
			buf := make([]byte, 512)
			for {
				n, _, err := unix.Recvfrom(fd, buf, 0)
				if err != nil || n < 8 {
					return
				}
				got <- numberOf(buf[:n])
			}
		}()
		if err := sending.Wait(); err != nil {
			t.Fatal(err)
		}
		packets := poll(t, source)
		if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil && !errors.Is(err, unix.ENOTCONN) {
			t.Fatal(err)
		}
		for _, p := range packets {
			if p.Kind != Delivered && p.Kind != Read {
				continue
			}
			s, ok := sender[p.Src]
			n := numberOf(p.Payload)
			if !ok || n < s*each || n >= (s+1)*each || !bytes.Equal(p.Payload, numberedQuery(s, n)) {
				t.Fatalf("%s: kind %d from %s, which did not send these %d bytes: %x", name, p.Kind, p.Src, len(p.Payload), p.Payload)
			}
		}
		var truth []int
		for n := range got {
			truth = append(truth, n)
		}
		read := ofKind(packets, Read)
		at := 0
		for i := range read {
			n := numberOf(read[i].Payload)
			skipped := slices.Index(truth[at:], n)
			if skipped < 0 {
				t.Fatalf("%s: the %dth read of %d, at %d ns, is said to be of %d, which was the %dth of %d, and %d were before it",
					name, i, len(read), read[i].Time, n, slices.Index(truth, n), len(truth), at)
			}
			at += skipped + 1
		}
		c := source.Counters()
		t.Logf("%s: %d delivered, %d read, %d told, %d dropped, %d lost", name, len(ofKind(packets, Delivered)), len(truth), len(read), len(ofKind(packets, Drop)), c.Lost)
	}
}

// numberedQuery is a query of a sender, alike but for the number behind the question.
func numberedQuery(sender, n int) []byte {
	return append(withID(sender), be(8, uint64(n))...)
}

// numberOf is that of a query; -1: it is none.
func numberOf(query []byte) int {
	if len(query) < 8 {
		return -1
	}
	return int(binary.BigEndian.Uint64(query[len(query)-8:]))
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
