package integration

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// attacker is a pod that may send whatever it likes.
type attacker struct {
	t      *testing.T
	host   *lab.Host
	v4, v6 int // raw sockets, to which whole IP packets are given
	sent   int // packets and segments that the attacker's own kernel took
}

func newAttacker(t *testing.T, host *lab.Host) *attacker {
	t.Helper()
	a := &attacker{t: t, host: host}
	err := host.Do(func() (err error) {
		if a.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
			return err
		}
		a.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Close(a.v4), unix.Close(a.v6)); err != nil {
			t.Error(err)
		}
	})
	return a
}

// raw sends an IP packet. What the attacker's own kernel refuses reaches nobody.
func (a *attacker) raw(packet []byte) {
	a.t.Helper()
	var err error
	if packet[0]>>4 == 4 {
		err = unix.Sendto(a.v4, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])})
	} else {
		err = unix.Sendto(a.v6, packet, 0, &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])})
	}
	switch {
	case err == nil:
		a.sent++
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS):
		a.t.Fatal(err)
	}
}

// datagram sends a UDP payload to the Service, through an ordinary socket.
func (a *attacker) datagram(server netip.AddrPort, payloads ...[]byte) {
	a.t.Helper()
	conn := a.dial("udp", server)
	defer conn.Close()
	for _, p := range payloads {
		// An answer of ICMP to the one before is an error of this one.
		_, err := conn.Write(p)
		switch {
		case err == nil:
			a.sent++
		case !errors.Is(err, unix.ECONNREFUSED):
			a.t.Fatal(err)
		}
	}
}

// streamPatience is how long the attacker waits for each answer, if he does.
const streamPatience = 500 * time.Millisecond

// stream sends each piece over one connection in a segment of its own, and reads
// what comes back until nothing more does.
func (a *attacker) stream(pieces ...[]byte) (answer []byte) {
	a.t.Helper()
	conn := a.dial("tcp", lab.ServiceV4)
	defer conn.Close()
	for _, p := range pieces {
		if _, err := conn.Write(p); err != nil {
			return nil // the server has had enough
		}
		a.left(conn)
		a.sent++
	}
	buf := make([]byte, 1<<16)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(streamPatience)); err != nil {
			a.t.Fatal(err)
		}
		n, err := conn.Read(buf)
		answer = append(answer, buf[:n]...)
		if err != nil {
			return answer
		}
	}
}

// left waits until what was written to a connection was sent: the kernel puts what waits
// for the congestion window into one segment.
func (a *attacker) left(conn net.Conn) {
	a.t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		a.t.Fatal(err)
	}
	waiting := 1
	for end := time.Now().Add(streamPatience); waiting > 0 && time.Now().Before(end); {
		var asked error
		if err := raw.Control(func(fd uintptr) { waiting, asked = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }); err != nil || asked != nil {
			a.t.Fatal(err, asked)
		}
	}
}

func (a *attacker) dial(network string, server netip.AddrPort) (conn net.Conn) {
	a.t.Helper()
	err := a.host.Do(func() (err error) {
		conn, err = net.DialTimeout(network, server.String(), 5*time.Second)
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return conn
}

func be16(v int) []byte { return []byte{byte(v >> 8), byte(v)} }

// udpHeader is a UDP packet without checksum, which IPv4 allows.
func udpHeader(src, dst uint16, payload []byte) []byte {
	return slices.Concat(be16(int(src)), be16(int(dst)), be16(8+len(payload)), be16(0), payload)
}

// ipv4 is a header as it is told, and what follows it.
type ipv4 struct {
	src, dst netip.Addr
	protocol byte
	options  []byte // whole words
	id       int
	fragment int // offset in units of eight bytes, and flags
	words    int // of the header; 0: as many as it has
}

const moreFragments = 0x2000

func (h ipv4) packet(payload []byte) []byte {
	words := h.words
	if words == 0 {
		words = 5 + len(h.options)/4
	}
	src, dst := h.src.As4(), h.dst.As4()
	return slices.Concat([]byte{byte(0x40 | words), 0}, be16(20+len(h.options)+len(payload)), be16(h.id), be16(h.fragment),
		[]byte{64, h.protocol, 0, 0}, src[:], dst[:], h.options, payload)
}

func ipv6(src, dst netip.Addr, next byte, payload []byte) []byte {
	s, d := src.As16(), dst.As16()
	return slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(payload)), []byte{next, 64}, s[:], d[:], payload)
}

// Extension headers of IPv6 (RFC 8200, section 4).
const (
	hopByHop    = 0
	routing     = 43
	fragmentHdr = 44
	destination = 60
)

// extension is an options header of eight bytes, all padding.
func extension(next byte, payload []byte) []byte {
	return slices.Concat([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload)
}

func fragment6(next byte, offset int, more bool, id byte, payload []byte) []byte {
	flags := offset &^ 7
	if more {
		flags |= 1
	}
	return slices.Concat([]byte{next, 0}, be16(flags), []byte{0, 0, 0, id}, payload)
}
