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

// How often a server is reported, and how many may be remembered, and queued.
const (
	reportEvery = 5 * time.Second
	maxServers  = 1024
)

// Ports of DNS over HTTPS, TLS and QUIC (RFC 8484, RFC 7858, RFC 9250), whose packets
// show no message.
const (
	portHTTPS = 443
	portTLS   = 853
)

// Servers delivers each server whose records arrive, every few seconds again while they
// do. One that finds the queue full is reported later.
func (r *Receiver) Servers() <-chan Server { return r.servers }

// reportServer reports the server that a record names, with the process that sent it, which
// may be any. It leaves out encrypted transports, whose packets show nothing: they use
// connections, or ports of their own, or have no ID (RFC 9250, section 4.2.1).
func (r *Receiver) reportServer(q *trace.Query, pid int) {
	if pid == 0 || q.Protocol != "udp" || q.ID == 0 || q.ServerPort == 0 || q.ServerPort == portHTTPS || q.ServerPort == portTLS {
		return
	}
	s, now := Server{pid, q.ServerPort}, time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.reported[s]; ok && now.Sub(at) < reportEvery {
		return
	}
	if len(r.reported) >= maxServers {
		clear(r.reported)
	}
	select {
	case r.servers <- s:
		r.reported[s] = now
	default:
	}
}
