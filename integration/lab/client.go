package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Client asks DNS questions from a host, with sockets inside its namespace. It
// holds no state; its methods may be called from several goroutines.
type Client struct {
	host *Host
}

// Client returns a client on a host: a client pod, or Node for a pod with host
// networking.
func (l *Lab) Client(host string) *Client { return &Client{l.Host(host)} }

// Exchange makes one lookup. The error is Result.Err; the Result is filled in
// as far as the lookup came in any case.
func (c *Client) Exchange(ctx context.Context, q Query) (Result, error) {
	results := c.ExchangeTogether(ctx, q)
	return results[0], results[0].Err
}

// ExchangeTogether sends several queries one directly after the other from one
// socket, and then waits for the answers, in whatever order they come. The
// results are in the order of the queries. Queries without an ID of their own
// get different ones.
func (c *Client) ExchangeTogether(ctx context.Context, queries ...Query) []Result {
	first := queries[0].withDefaults()
	if c.host.hasty.Load() > 0 && first.GiveUpAfter == 0 {
		first.GiveUpAfter = time.Nanosecond
	}
	conv := &conversation{socket: first}
	for _, q := range queries {
		if err := conv.add(q); err != nil {
			conv.end(err)
			return conv.results
		}
	}
	conn, err := c.dial(ctx, first)
	if err != nil {
		conv.end(err)
		return conv.results
	}
	defer conn.Close()
	conv.over(ctx, conn)
	return conv.results
}

// over holds the conversation over a socket, which is closed if ctx ends meanwhile.
func (v *conversation) over(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	v.conn = conn
	err := v.hold()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	v.end(err)
}

// dial opens a socket in the client's namespace, connected to the server, so
// that ICMP errors come back to it.
func (c *Client) dial(ctx context.Context, q Query) (net.Conn, error) {
	if q.Unconnected {
		return c.open(q)
	}
	d := net.Dialer{Timeout: q.Timeout}
	if q.LocalPort != 0 {
		local := netip.AddrPortFrom(netip.IPv4Unspecified(), q.LocalPort)
		if q.Server.Addr().Is6() {
			local = netip.AddrPortFrom(netip.IPv6Unspecified(), q.LocalPort)
		}
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
		if q.Network == "tcp" {
			d.LocalAddr = net.TCPAddrFromAddrPort(local)
			d.Control = reuseAddress
		}
	}
	var conn net.Conn
	err := c.host.Do(func() (err error) {
		conn, err = d.DialContext(ctx, q.Network, q.Server.String())
		return err
	})
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		// The dialer has an error of its own for this.
		err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	}
	return conn, err
}

// open opens a UDP socket in the client's namespace, without a peer.
func (c *Client) open(q Query) (net.Conn, error) {
	network := "udp4"
	if q.Server.Addr().Is6() {
		network = "udp6"
	}
	var conn *net.UDPConn
	var local netip.Addr
	err := c.host.Do(func() (err error) {
		// A socket that is connected knows the address that the other will send from.
		connected, err := net.Dial(network, q.Server.String())
		if err != nil {
			return err
		}
		local = addrPort(connected.LocalAddr()).Addr()
		if err := connected.Close(); err != nil {
			return err
		}
		conn, err = net.ListenUDP(network, &net.UDPAddr{Port: int(q.LocalPort)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &unconnected{conn, netip.AddrPortFrom(local, addrPort(conn.LocalAddr()).Port()), q.Server}, nil
}

// unconnected is a UDP socket that names its peer with each message, and takes
// messages from that address only.
type unconnected struct {
	*net.UDPConn
	local, peer netip.AddrPort
}

// LocalAddr implements net.Conn with the host's address: the socket has none.
func (u *unconnected) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(u.local) }

// Write implements net.Conn.
func (u *unconnected) Write(b []byte) (int, error) { return u.WriteToUDPAddrPort(b, u.peer) }

// Read implements net.Conn.
func (u *unconnected) Read(b []byte) (int, error) {
	for {
		n, from, err := u.ReadFromUDPAddrPort(b)
		if err != nil || from == u.peer {
			return n, err
		}
	}
}

// reuseAddress lets a TCP client ask from the same port again soon. It must not
// be set where the kernel chooses the port: it may then give one port to two
// UDP sockets, of which only one gets the answers.
func reuseAddress(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}

// conversation is some queries over one socket, and what became of them.
type conversation struct {
	socket  Query // whose fields of the socket hold
	conn    net.Conn
	packed  [][]byte
	results []Result
	open    int // results without an answer
}

// add prepares one more query.
func (v *conversation) add(q Query) error {
	explicit := q.ID != 0
	q = q.withDefaults()
	for !explicit && v.taken(q.ID) {
		q.ID++
	}
	m := q.message()
	r := Result{ID: q.ID, Network: v.socket.Network, Server: v.socket.Server, Sent: time.Now()}
	if len(m.Question) > 0 {
		r.Name, r.Type = dns.CanonicalName(m.Question[0].Name), m.Question[0].Qtype
	}
	v.results = append(v.results, r)
	v.open++
	wire, err := m.Pack()
	if err != nil {
		return fmt.Errorf("query for %s: %w", q.Name, err)
	}
	v.packed = append(v.packed, wire)
	return nil
}

func (v *conversation) taken(id uint16) bool {
	for _, r := range v.results {
		if r.ID == id {
			return true
		}
	}
	return false
}

// hold sends the queries and reads answers until all are there, or until the
// first error.
func (v *conversation) hold() error {
	for i := range v.results {
		v.results[i].Local = addrPort(v.conn.LocalAddr())
		v.results[i].Sent = time.Now()
		if err := v.send(i); err != nil {
			return err
		}
	}
	deadline := v.results[0].Sent.Add(v.socket.Timeout)
	giveUp := v.socket.GiveUpAfter > 0 && v.socket.GiveUpAfter < v.socket.Timeout
	if giveUp {
		deadline = time.Now().Add(v.socket.GiveUpAfter)
	}
	err := v.read(deadline)
	if giveUp && errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrGaveUp
	}
	return err
}

// read reads answers until all are there or the deadline has passed, and sends
// queries again where asked to.
func (v *conversation) read(deadline time.Time) error {
	again := v.socket.RetransmitAfter > 0 && v.socket.Network == "udp"
	for v.open > 0 {
		until := deadline
		if next := time.Now().Add(v.socket.RetransmitAfter); again && next.Before(deadline) {
			until = next
		}
		if err := v.conn.SetReadDeadline(until); err != nil {
			return err
		}
		err := v.readOne()
		if errors.Is(err, os.ErrDeadlineExceeded) && until.Before(deadline) {
			err = v.sendOpen()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendOpen sends what has no answer yet once more.
func (v *conversation) sendOpen() error {
	for i := range v.results {
		if v.results[i].Answer == nil {
			if err := v.send(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *conversation) send(i int) error {
	wire := v.packed[i]
	if v.socket.Network == "tcp" {
		wire = append([]byte{byte(len(wire) >> 8), byte(len(wire))}, wire...)
	}
	v.results[i].Transmissions++
	_, err := v.conn.Write(wire)
	return err
}

// datagrams are buffers for the largest: to make one for each answer is most of what a
// lookup costs its client.
var datagrams = sync.Pool{New: func() any { return new([dns.MaxMsgSize]byte) }}

func (v *conversation) readMessage() ([]byte, error) {
	if v.socket.Network == "tcp" {
		return (&dns.Conn{Conn: v.conn}).ReadMsgHeader(nil)
	}
	buf := datagrams.Get().(*[dns.MaxMsgSize]byte)
	defer datagrams.Put(buf)
	n, err := v.conn.Read(buf[:])
	return slices.Clone(buf[:n]), err
}

// readOne reads one message and gives it to the query that it answers; a
// message that answers none is passed over.
func (v *conversation) readOne() error {
	wire, err := v.readMessage()
	if err != nil {
		return err
	}
	now := time.Now()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	for i := range v.results {
		r := &v.results[i]
		if r.ID == m.Id && r.Answer == nil {
			r.Answer, r.Latency = m, now.Sub(r.Sent)
			v.open--
			break
		}
	}
	return nil
}

// end marks the queries without an answer with why they have none.
func (v *conversation) end(err error) {
	for i := range v.results {
		if r := &v.results[i]; r.Answer == nil {
			r.Err, r.Latency = err, time.Since(r.Sent)
		}
	}
}
