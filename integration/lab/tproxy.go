package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// proxy passes DNS messages on in a namespace, of one family of addresses, with the
// addresses and ports of the client and the server kept.
type proxy struct {
	host    *Host
	family  family
	queries *net.UDPConn
	streams net.Listener
	taken   *atomic.Uint64 // messages and connections

	mu       sync.Mutex
	open     map[io.Closer]bool             // what end closes; nil once it has
	sessions map[[2]netip.AddrPort]*session // by client and server
	wait     sync.WaitGroup
}

// session is what passes between a client's UDP socket and a server. Its sockets have
// the client's address towards the server, and the server's towards the client.
type session struct {
	client, server netip.AddrPort
	up, down       *net.UDPConn
	used           time.Time // with the proxy's lock
}

// proxyPatience is how long the proxy waits for a server, longer than clients do, and how
// long it keeps a session in which nothing passes.
const proxyPatience = 10 * time.Second

// startProxy starts a proxy, which ends with the lab, and counts what it takes.
func (l *Lab) startProxy(host *Host, f family, taken *atomic.Uint64) error {
	p := &proxy{host: host, family: f, taken: taken, open: make(map[io.Closer]bool), sessions: make(map[[2]netip.AddrPort]*session)}
	every := netip.AddrPortFrom(f.unspecifiedAddr, proxyPort)
	err := host.Do(func() error {
		conn, err := p.socket(unix.IP_RECVORIGDSTADDR, unix.IPV6_RECVORIGDSTADDR).ListenPacket(context.Background(), p.network("udp"), every.String())
		if err != nil {
			return err
		}
		p.queries = conn.(*net.UDPConn)
		if p.streams, err = p.socket().Listen(context.Background(), p.network("tcp"), every.String()); err != nil {
			return errors.Join(err, conn.Close())
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.keep(p.queries)
	p.keep(p.streams)
	p.wait.Go(p.serveUDP)
	p.wait.Go(p.serveTCP)
	l.atClose(p.end)
	return nil
}

// network is the name of a network with the proxy's family.
func (p *proxy) network(base string) string {
	if p.family.family == unix.AF_INET6 {
		return base + "6"
	}
	return base + "4"
}

// socket prepares sockets that may have addresses which are not the host's. extra are an
// option of IPv4 and one of IPv6 that is set as well.
func (p *proxy) socket(extra ...int) *net.ListenConfig {
	level, transparent, which := unix.SOL_IP, unix.IP_TRANSPARENT, 0
	if p.family.family == unix.AF_INET6 {
		level, transparent, which = unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1
	}
	options := []int{transparent}
	if len(extra) > 0 {
		options = append(options, extra[which])
	}
	return &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			for _, option := range options {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), level, option, 1))
			}
			failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		})
		return errors.Join(err, failed)
	}}
}

// keep lets end close c, and closes it if end has been there.
func (p *proxy) keep(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		c.Close()
		return
	}
	p.open[c] = true
}

func (p *proxy) drop(c io.Closer) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	c.Close()
}

// end closes all sockets and waits for those who use them.
func (p *proxy) end() error {
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for c := range open {
		c.Close()
	}
	p.wait.Wait()
	return nil
}

// serveUDP takes queries until the socket is closed, and sends each on as the client's.
func (p *proxy) serveUDP() {
	query, control := make([]byte, 65535), make([]byte, 256)
	for {
		n, nc, _, client, err := p.queries.ReadMsgUDPAddrPort(query, control)
		if err != nil {
			return
		}
		p.taken.Add(1)
		server, ok := addressed(control[:nc])
		if !ok {
			continue
		}
		if s, err := p.session(client, server); err == nil {
			// A server that is gone is no concern of the proxy's.
			_, _ = s.up.WriteToUDPAddrPort(query[:n], server)
		}
	}
}

// session returns the session of a client and a server, which lasts for proxyPatience
// from now at least.
func (p *proxy) session(client, server netip.AddrPort) (*session, error) {
	key := [2]netip.AddrPort{client, server}
	p.mu.Lock()
	s := p.sessions[key]
	if s != nil {
		s.used = time.Now()
	}
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	up, err := p.openUDP(client)
	if err != nil {
		return nil, err
	}
	down, err := p.openUDP(server)
	if err != nil {
		p.drop(up)
		return nil, err
	}
	s = &session{client: client, server: server, up: up, down: down, used: time.Now()}
	p.mu.Lock()
	p.sessions[key] = s
	p.mu.Unlock()
	p.wait.Go(func() {
		p.passBack(s)
		p.drop(up)
		p.drop(down)
	})
	return s, nil
}

// passBack sends responses to the client as the server's, until the session is over.
func (p *proxy) passBack(s *session) {
	response := make([]byte, 65535)
	for {
		if err := s.up.SetReadDeadline(time.Now().Add(proxyPatience)); err != nil {
			return
		}
		n, from, err := s.up.ReadFromUDPAddrPort(response)
		switch {
		case err == nil && from == s.server:
			// A client that is gone is no concern of the proxy's.
			_, _ = s.down.WriteToUDPAddrPort(response[:n], s.client)
		case err != nil && p.over(s):
			return
		}
	}
}

// over tells whether a session is over, and takes it out then: nothing has passed for
// long enough, or the proxy has ended.
func (p *proxy) over(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil && time.Since(s.used) < proxyPatience {
		return false
	}
	delete(p.sessions, [2]netip.AddrPort{s.client, s.server})
	return true
}

// addressed reads where a message was sent to.
func addressed(control []byte) (netip.AddrPort, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for _, m := range messages {
		sa, err := unix.ParseOrigDstAddr(&m)
		if err != nil {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), true
		}
	}
	return netip.AddrPort{}, false
}

// askAs asks a server from a client's address and port, and returns its response, nil
// where none came.
func (p *proxy) askAs(client, server netip.AddrPort, query []byte) []byte {
	up, err := p.openUDP(client)
	if err != nil {
		return nil
	}
	defer p.drop(up)
	if _, err := up.WriteToUDPAddrPort(query, server); err != nil {
		return nil
	}
	if err := up.SetReadDeadline(time.Now().Add(proxyPatience)); err != nil {
		return nil
	}
	response := make([]byte, 65535)
	n, from, err := up.ReadFromUDPAddrPort(response)
	if err != nil || from != server {
		return nil
	}
	return response[:n]
}

// openUDP opens a socket with an address of somebody else's.
func (p *proxy) openUDP(local netip.AddrPort) (*net.UDPConn, error) {
	var conn net.PacketConn
	err := p.host.Do(func() (err error) {
		conn, err = p.socket().ListenPacket(context.Background(), p.network("udp"), local.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	p.keep(conn)
	return conn.(*net.UDPConn), nil
}

// serveTCP takes connections until the listener is closed.
func (p *proxy) serveTCP() {
	for {
		down, err := p.streams.Accept()
		if err != nil {
			return
		}
		p.taken.Add(1)
		p.keep(down)
		p.wait.Go(func() {
			defer p.drop(down)
			p.passTCP(down)
		})
	}
}

// passTCP connects to the server as the client, and copies both ways.
func (p *proxy) passTCP(down net.Conn) {
	dialer := net.Dialer{Timeout: proxyPatience, LocalAddr: down.RemoteAddr(), Control: p.socket().Control}
	var up net.Conn
	err := p.host.Do(func() (err error) {
		up, err = dialer.Dial(p.network("tcp"), down.LocalAddr().String())
		return err
	})
	if err != nil {
		return
	}
	p.keep(up)
	defer p.drop(up)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(up, down)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(down, up)
	p.drop(down) // the other way ends then too
	<-ended
}
