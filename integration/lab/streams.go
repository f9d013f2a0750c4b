package lab

import (
	"errors"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Streams says how a Server treats TCP. The zero value takes every connection.
type Streams struct {
	// Idle closes a connection that nothing came over for that long; 0 means 8 s.
	Idle time.Duration
	// Deaf listens and never accepts: the third connection that waits finds the queue
	// full.
	Deaf bool
}

// SetStreams makes the server treat TCP in another way. It opens its sockets again:
// connections and queries under way are lost.
func (s *Server) SetStreams(streams Streams) error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.mu.Lock()
	s.streams = streams
	s.mu.Unlock()
	return s.Start()
}

// server serves DNS on a listener.
func (t Streams) server(tcp net.Listener, handler dns.Handler) *dns.Server {
	srv := &dns.Server{Listener: tcp, Handler: handler}
	if t.Idle > 0 {
		srv.ReadTimeout, srv.IdleTimeout = t.Idle, func() time.Duration { return t.Idle }
	}
	return srv
}

// shortQueue makes the queue of connections that wait to be accepted as short as it can
// be: two fit in (sk_acceptq_is_full in include/net/sock.h).
func shortQueue(tcp *net.TCPListener) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Listen(int(fd), 1) })
	return errors.Join(err, failed)
}
