package receive

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
)

// Server is where a CoreDNS that sends records takes queries over UDP.
type Server struct {
	PID  int            // of the process that sends, in our PID namespace; 0: it is not in there
	Addr netip.AddrPort // its address is the unspecified one where the server binds none
}

// How often a server is told of, and how many may be remembered, and wait to be taken.
const (
	tellEvery  = 5 * time.Second
	maxServers = 1024
)

// Ports of DNS over HTTPS, TLS and QUIC (RFC 8484, RFC 7858, RFC 9250), whose packets
// show no message.
const (
	portHTTPS = 443
	portTLS   = 853
)

// Servers delivers each server whose records arrive, every few seconds again while they
// do. One that nobody takes in time is told of later.
func (r *Receiver) Servers() <-chan Server { return r.servers }

// serves tells of the server of a record. Of what came encrypted packets show nothing:
// that is over a connection, or on its own port, or has no ID (RFC 9250, section 4.2.1).
func (r *Receiver) serves(q *trace.Query, pid int) {
	if q.Protocol != "udp" || q.ID == 0 || q.ServerPort == 0 || q.ServerPort == portHTTPS || q.ServerPort == portTLS {
		return
	}
	addr := q.ServerIP
	if !addr.IsValid() {
		addr = netip.IPv6Unspecified()
	}
	s, now := Server{PID: pid, Addr: netip.AddrPortFrom(addr, q.ServerPort)}, time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.told[s]; ok && now.Sub(at) < tellEvery {
		return
	}
	if len(r.told) >= maxServers {
		clear(r.told)
	}
	select {
	case r.servers <- s:
		r.told[s] = now
	default:
	}
}

// passCredentials lets the kernel say who sends.
func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("ask for the senders of records: %w", set)
	}
	return nil
}

// senderOf returns the process that sent a datagram; 0: it is not in our PID namespace.
func senderOf(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if c, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return int(c.Pid)
		}
	}
	return 0
}
