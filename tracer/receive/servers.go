package receive

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Server is a port at which a process that sends records says to take queries over UDP.
type Server struct {
	PID  int // in our PID namespace
	Port uint16
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

// serves tells of the server that a record names, and of who says so: that may be anybody.
// Of what came encrypted packets show nothing:
// that is over a connection, or on its own port, or has no ID (RFC 9250, section 4.2.1).
func (r *Receiver) serves(q *trace.Query, pid int) {
	if pid == 0 || q.Protocol != "udp" || q.ID == 0 || q.ServerPort == 0 || q.ServerPort == portHTTPS || q.ServerPort == portTLS {
		return
	}
	s, now := Server{pid, q.ServerPort}, time.Now()
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
