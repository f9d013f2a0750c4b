package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

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
		read := slices.DeleteFunc(ofKind(packets, Read), func(p Packet) bool { return p.Unsure })
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
		t.Logf("%s: %d delivered, %d read, %d reported, %d dropped, %d lost", name, len(ofKind(packets, Delivered)), len(truth), len(read), len(ofKind(packets, Drop)), c.Lost)
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
