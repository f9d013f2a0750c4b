package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Server is a DNS server of the lab's own, inside this process with its sockets
// in a namespace. It does what its Behaviour says, which may change at run time,
// and logs what it received. It implements Listener.
type Server struct {
	host  *Host
	addrs []netip.AddrPort

	mu         sync.Mutex
	behaviours []*rule // the newest of the longest zone wins
	received   []Received
	streams    Streams
	listening  []serving
	deaf       []net.Listener
	quit       chan struct{} // closed by Stop: answers held back are dropped
}

// serving is one socket of a Server, and what its goroutine ended with.
type serving struct {
	*dns.Server
	ended <-chan error
}

// rule is a Behaviour for the names at or below a zone.
type rule struct {
	zone      string
	behaviour Behaviour

	// Guarded by the server's lock.
	asked map[string]int // queries over UDP so far, by name and type, where Slip is set
	open  int            // queries under way
}

// holds tells whether a query falls under the rule.
func (r *rule) holds(q *Received) bool {
	b := &r.behaviour
	return dns.IsSubDomain(r.zone, q.Name) && (b.Type == 0 || b.Type == q.Type) && (b.Network == "" || b.Network == q.Network)
}

// Received is one query as a Server got it: the ground truth of a test.
type Received struct {
	Time    time.Time
	ID      uint16
	Client  netip.AddrPort // as the server sees it, after any translation
	Server  netip.AddrPort // which of the server's addresses it came to
	Network string         // udp or tcp
	Name    string         // in lower case
	Type    uint16
	Options []dns.EDNS0 // of the query's OPT record
}

// Serve starts a Server in a host's namespace, listening on each address over
// UDP and TCP. It is stopped with the lab.
func (l *Lab) Serve(host string, addrs ...netip.AddrPort) (*Server, error) {
	s := &Server{host: l.Host(host), addrs: addrs}
	if err := s.Start(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.servers = append(l.servers, s)
	l.mu.Unlock()
	return s, nil
}

// Upstream returns the i-th upstream server, from 0.
func (l *Lab) Upstream(i int) *Server { return l.upstreams[i] }

// V4 returns the server's first IPv4 address, V6 its first IPv6 address, each
// the zero AddrPort if it has none.
func (s *Server) V4() netip.AddrPort { return s.first(netip.Addr.Is4) }

// V6 is described at V4.
func (s *Server) V6() netip.AddrPort { return s.first(netip.Addr.Is6) }

func (s *Server) first(is func(netip.Addr) bool) netip.AddrPort {
	for _, a := range s.addrs {
		if is(a.Addr()) {
			return a
		}
	}
	return netip.AddrPort{}
}

// Set makes the server treat names at or below zone ("." for all) in another
// way, until undo is called. The longest zone wins, then the newest Set.
func (s *Server) Set(zone string, b Behaviour) (undo func()) {
	r := &rule{zone: dns.CanonicalName(zone), behaviour: b, asked: make(map[string]int)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviours = append(s.behaviours, r)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, other := range s.behaviours {
			if other == r {
				s.behaviours = append(s.behaviours[:i:i], s.behaviours[i+1:]...)
				return
			}
		}
	}
}

// Received returns a copy of what came in so far, in order; with names, only
// the queries for one of these.
func (s *Server) Received(names ...string) []Received {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[dns.CanonicalName(name)] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []Received
	for _, r := range s.received {
		if len(names) == 0 || wanted[r.Name] {
			got = append(got, r)
		}
	}
	return got
}

// Forget empties the log of what was received.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = nil
}

// Start opens the server's sockets; a server that runs is left alone.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listening != nil {
		return nil
	}
	s.quit = make(chan struct{})
	handler := s.handler(s.quit)
	for _, addr := range s.addrs {
		if err := s.listen(addr, handler); err != nil {
			return errors.Join(fmt.Errorf("DNS server on %s in %s: %w", addr, s.host.Name, err), s.stop())
		}
	}
	return nil
}

// listen opens addr over UDP and TCP inside the host, and serves both.
func (s *Server) listen(addr netip.AddrPort, handler dns.Handler) error {
	var udp *net.UDPConn
	var tcp *net.TCPListener
	err := s.host.Do(func() (err error) {
		if udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		if tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
			return errors.Join(err, udp.Close())
		}
		return enlargeBuffer(udp)
	})
	if err != nil {
		return err
	}
	servers := []*dns.Server{{PacketConn: udp, Handler: handler}}
	if s.streams.Deaf {
		if err := shortQueue(tcp); err != nil {
			return errors.Join(err, udp.Close(), tcp.Close())
		}
		s.deaf = append(s.deaf, tcp)
	} else {
		servers = append(servers, s.streams.server(tcp, handler))
	}
	for _, srv := range servers {
		started, ended := make(chan struct{}), make(chan error, 1)
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- srv.ActivateAndServe() }()
		select {
		case <-started: // Shutdown works only from now on
			s.listening = append(s.listening, serving{srv, ended})
		case err := <-ended:
			return errors.Join(err, udp.Close(), tcp.Close())
		}
	}
	return nil
}

// enlargeBuffer gives a socket a receive buffer beyond net.core.rmem_max: the
// ground truth of a test must not lose queries when the machine stalls.
func enlargeBuffer(udp *net.UDPConn) error {
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	})
	return errors.Join(err, failed)
}

// Stop closes the server's sockets; what it received and how it is to behave
// stay. A server that is stopped already is left alone.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Server) stop() error {
	var errs []error
	if s.quit != nil {
		close(s.quit)
	}
	// Handlers need the lock to end, and Shutdown waits for them.
	listening, deaf := s.listening, s.deaf
	s.listening, s.deaf, s.quit = nil, nil, nil
	s.mu.Unlock()
	for _, srv := range listening {
		// The socket is closed when its goroutine has ended.
		errs = append(errs, srv.Shutdown(), <-srv.ended)
	}
	for _, l := range deaf {
		errs = append(errs, l.Close())
	}
	s.mu.Lock()
	return errors.Join(errs...)
}

func (s *Server) handler(quit <-chan struct{}) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		now := time.Now()
		if len(query.Question) != 1 {
			return
		}
		network := w.LocalAddr().Network()
		b, done := s.receive(now, network, w, query)
		defer done()
		if b.Silent {
			return
		}
		if b.Delay > 0 {
			select {
			case <-time.After(b.Delay):
			case <-quit:
				return
			}
		}
		if m := b.reply(query, network); network == "udp" && b.From.IsValid() {
			s.sendFrom(b.From, addrPort(w.RemoteAddr()), m)
		} else {
			b.send(w, m)
		}
	})
}

// sendFrom sends an answer over UDP from an address and port of its own. A client that is
// gone is no concern of the server's.
func (s *Server) sendFrom(from, to netip.AddrPort, m *dns.Msg) {
	wire, err := m.Pack()
	if err != nil {
		return
	}
	_ = s.host.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		_, err = conn.Write(wire)
		return errors.Join(err, conn.Close())
	})
}

// send sends an answer. A client that is gone is no concern of the server's.
func (b Behaviour) send(w dns.ResponseWriter, m *dns.Msg) {
	if b.Mangle == nil {
		_ = w.WriteMsg(m)
		return
	}
	if wire, err := m.Pack(); err == nil {
		_, _ = w.Write(b.Mangle(wire))
	}
}

// receive logs a query and tells how to treat it; done is called when it has been.
func (s *Server) receive(now time.Time, network string, w dns.ResponseWriter, query *dns.Msg) (b Behaviour, done func()) {
	r := Received{
		Time:    now,
		ID:      query.Id,
		Client:  addrPort(w.RemoteAddr()),
		Server:  addrPort(w.LocalAddr()),
		Network: network,
		Name:    dns.CanonicalName(query.Question[0].Name),
		Type:    query.Question[0].Qtype,
	}
	if opt := query.IsEdns0(); opt != nil {
		r.Options = opt.Option
	}
	s.mu.Lock()
	s.received = append(s.received, r)
	s.mu.Unlock()
	return s.behave(&r)
}

// behave tells how to treat a query; done is called when it has been.
func (s *Server) behave(q *Received) (b Behaviour, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := new(rule)
	for _, other := range s.behaviours {
		if other.holds(q) && len(other.zone) >= len(r.zone) {
			r = other
		}
	}
	b = r.behaviour
	if b.Slip > 1 && q.Network == "udp" {
		key := fmt.Sprint(q.Name, q.Type)
		r.asked[key]++
		b.Silent = r.asked[key]%b.Slip != 0
	}
	if b.Limit > 0 && r.open >= b.Limit {
		return Behaviour{Rcode: dns.RcodeRefused}, func() {}
	}
	r.open++
	return b, func() {
		s.mu.Lock()
		r.open--
		s.mu.Unlock()
	}
}

// addrPort reads the address of a UDP or TCP socket.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
