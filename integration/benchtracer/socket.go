package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
)

const (
	headerSize = 12
	// readTimeout is how long a read may block: then the context is looked at.
	readTimeout = 100_000 // µs
	// receiveBuffer holds all answers that may come while the machine stalls.
	receiveBuffer = 4 << 20
)

// socket asks from the client pod. It blocks in the kernel, without Go's poller
// between, whose work differs from one run to the next.
type socket struct {
	fd     int
	packet []byte // the query, to be filled in
	digits []byte // of its name
	names  int
	rcode  int
	next   int
	buf    [512]byte
}

// dial opens a socket to an address, asking for a server's names from the i-th.
func (r *rig) dial(to netip.AddrPort, of server, i int) (*socket, error) {
	if r.port == math.MaxUint16 {
		return nil, errors.New("no source port is left: use fewer rounds")
	}
	r.port++
	m := new(dns.Msg).SetQuestion("00000000."+cmp.Or(of.zone, "bench.test."), dns.TypeA)
	packet, err := m.Pack()
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1, packet: packet, digits: packet[headerSize+1 : headerSize+9], names: of.names, rcode: of.rcode, next: i}
	err = r.Host(clientPod).Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: readTimeout}),
			unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
			unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(r.port)}),
			unix.Connect(s.fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
		)
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("socket to %s: %w", to, err)
	}
	return s, nil
}

// dialAll opens a socket a client, and gives each names of its own to begin with.
func (r *rig) dialAll(to netip.AddrPort, of server, clients int) ([]*socket, error) {
	var all []*socket
	for i := range clients {
		s, err := r.dial(to, of, of.names/clients*i)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func closeAll(all []*socket) {
	for _, s := range all {
		s.close()
	}
}

func (s *socket) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
	}
}

// send asks for the next name.
func (s *socket) send(id uint16) error {
	binary.BigEndian.PutUint16(s.packet, id)
	number := s.next % s.names
	s.next++
	for i := len(s.digits) - 1; i >= 0; i-- {
		s.digits[i] = '0' + byte(number%10)
		number /= 10
	}
	_, err := retry(func() (int, error) { return unix.Write(s.fd, s.packet) })
	return err
}

// errNothing is a read that ended at its timeout.
var errNothing = errors.New("no answer")

// receive returns the id of the next answer.
func (s *socket) receive() (uint16, error) {
	n, err := retry(func() (int, error) { return unix.Read(s.fd, s.buf[:]) })
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, errNothing
	case err != nil:
		return 0, err
	case n < headerSize:
		return 0, fmt.Errorf("an answer of %d bytes", n)
	}
	if rcode := int(s.buf[3] & 0xf); rcode != s.rcode {
		return 0, fmt.Errorf("the answer is %s, not %s", dns.RcodeToString[rcode], dns.RcodeToString[s.rcode])
	}
	return binary.BigEndian.Uint16(s.buf[:]), nil
}

// retry repeats a system call that Go's own signals interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// service is where the client pod asks.
var service = lab.ServiceV4
