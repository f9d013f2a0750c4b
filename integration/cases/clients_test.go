package cases

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// programs are the clients that the tests build, by name.
type programs map[string]string

var built programs

// build compiles the clients.
func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	found := make(programs)
	for name, command := range map[string][]string{
		"glibc":     {"gcc", "-O1", "-o", "OUT", "../testdata/gai.c"},
		"musl":      {"musl-gcc", "-static", "-O1", "-o", "OUT", "../testdata/gai.c"},
		"go":        {"go", "build", "-tags", "netgo", "-o", "OUT", "../testdata/goresolve"},
		"mixedcase": {"go", "build", "-o", "OUT", "./testdata/mixedcase"},
	} {
		found[name] = filepath.Join(dir, name)
		for i, arg := range command {
			if arg == "OUT" {
				command[i] = found[name]
			}
		}
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v (of the Debian packages gcc and musl-tools)\n%s", name, err, out)
		}
	}
	return found
}

// exec runs a program to its end, in client-a if it names no host. It may fail, as its
// lookups may.
func (c *caseLab) exec(spec lab.Spec) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if spec.Host == "" {
		spec.Host = "client-a"
	}
	if _, err := c.Run(ctx, spec); errors.Is(err, context.DeadlineExceeded) {
		c.t.Error(err)
	}
}

// dig asks the Service for a name once, with more arguments of dig.
func dig(name string, args ...string) ask {
	return func(c *caseLab) { digAt(lab.ServiceV4.Addr(), name, args...)(c) }
}

// digUpstream asks the first upstream.
func digUpstream(name string, args ...string) ask {
	return func(c *caseLab) { digAt(c.Upstream(0).V4().Addr(), name, append([]string{"+time=2"}, args...)...)(c) }
}

func digAt(server netip.Addr, name string, args ...string) ask {
	return func(c *caseLab) { c.digFrom("client-a", server, name, args...) }
}

func (c *caseLab) digFrom(host string, server netip.Addr, name string, args ...string) {
	c.exec(lab.Spec{Name: "dig", Host: host, Path: "dig", Args: append([]string{"+tries=1", "+time=6", "@" + server.String(), name}, args...)})
}

// What a pod's /etc/resolv.conf says.
const (
	once   = "nameserver 10.96.0.10\noptions timeout:2 attempts:1\n"
	asEver = "nameserver 10.96.0.10\n"
)

// glibc resolves a name as most programs do, musl as those of Alpine Linux do, and
// goResolver as those written in Go: it asks for A and AAAA from a socket each.
func glibc(name, resolvConf string) ask { return getaddrinfo("glibc", name, resolvConf) }

func musl(name, resolvConf string) ask { return getaddrinfo("musl", name, resolvConf) }

func goResolver(name, resolvConf string) ask { return getaddrinfo("go", name, resolvConf) }

func getaddrinfo(libc, name, resolvConf string) ask {
	return func(c *caseLab) {
		c.exec(lab.Spec{Name: libc, Path: built[libc], Args: []string{name}, ResolvConf: resolvConf})
	}
}

// message sends a message as it is.
func message(m *dns.Msg) ask {
	return func(c *caseLab) {
		// What became of it is in the trace.
		_, _ = c.Client("client-a").Exchange(context.Background(), lab.Query{Message: m, Timeout: 2 * time.Second})
	}
}

// spoiled sends the CoreDNS pod a query over UDP with a wrong checksum.
func spoiled(name string) ask {
	return func(c *caseLab) {
		query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			c.t.Error(err)
			return
		}
		client, server := c.Host("client-a"), c.Host(lab.CoreDNS)
		packet := datagram(netip.AddrPortFrom(client.V4, 40001), netip.AddrPortFrom(server.V4, 53), query)
		err = client.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				return err
			}
			return errors.Join(unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: server.V4.As4()}), unix.Close(fd))
		})
		if err != nil {
			c.t.Error(err)
		}
	}
}

// datagram makes an IPv4 packet (RFC 791) whose UDP checksum is not right. The kernel
// fills in the header's own.
func datagram(src, dst netip.AddrPort, payload []byte) []byte {
	const header, udp = 20, 8
	p := make([]byte, header+udp, header+udp+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(cap(p)))
	copy(p[12:], src.Addr().AsSlice())
	copy(p[16:], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[header:], src.Port())
	binary.BigEndian.PutUint16(p[header+2:], dst.Port())
	binary.BigEndian.PutUint16(p[header+4:], uint16(udp+len(payload)))
	binary.BigEndian.PutUint16(p[header+6:], 0xbeef)
	return append(p, payload...)
}

// fillQueue opens connections to the first upstream that nobody accepts, until no more
// can be, and holds them until the lab goes.
func fillQueue(c *caseLab) {
	const more = 5 // than fit
	conns := make(chan net.Conn, more)
	server := c.Upstream(0).V4().String()
	for range more {
		go func() {
			var conn net.Conn
			// Where the queue is full already, there is nothing to hold.
			_ = c.Host("client-b").Do(func() (err error) {
				conn, err = net.DialTimeout("tcp", server, 2*time.Second)
				return err
			})
			conns <- conn
		}()
	}
	held := 0
	for range more {
		if conn := <-conns; conn != nil {
			held++
			c.t.Cleanup(func() { conn.Close() })
		}
	}
	if held == 0 || held == more {
		c.t.Errorf("%d connections of %d to a server that accepts none", held, more)
	}
}

// inHost runs a command in a host.
func (c *caseLab) inHost(host, path string, args ...string) {
	c.t.Helper()
	_, err := c.Run(context.Background(), lab.Spec{Name: filepath.Base(path), Host: host, Path: path, Args: args})
	c.must(err)
}
