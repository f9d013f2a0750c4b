package cases

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// carried are the rows about packets that a program carries between the node and the upstream,
// at 192.168.61.1.
var carried = []lookupCase{
	{name: "70 a program carries packets in IPIP", reported: "overlays in user space", arrange: tunnel(unix.IPPROTO_IPIP, nil)},
	{name: "70 a program carries packets in GRE", reported: "overlays in user space", arrange: tunnel(unix.IPPROTO_GRE, []byte{0, 0, 8, 0})},
	{name: "71 fragments and segments come in reverse order", reported: "a link that reorders", arrange: link(func(packets [][]byte) [][]byte {
		slices.Reverse(packets)
		return packets
	})},
	{name: "71 fragments and segments come twice", reported: "a link that doubles", arrange: link(func(packets [][]byte) [][]byte {
		return slices.Repeat(packets, 2)
	})},
}

func init() {
	for i := range carried {
		row := &carried[i]
		row.plugins = "forward . " + beyond.Addr().String()
		row.asks = []ask{dig("a.big.good.test", "+bufsize=4096"), dig("b.big.good.test", "+tcp"), dig("c.good.test"), dig("d.good.test", "+tcp"), dig("e.silent.test")}
		row.check = func(c *caseLab) {
			c.healthy()
			c.allExact()
			c.namedOnce("e.silent.test", beyond.String())
		}
	}
}

// beyond is the upstream there, of which the node is nodeThere.
var beyond = netip.MustParseAddrPort("192.168.61.1:53")

const nodeThere = "192.168.61.2"

// batch is for how long a link gathers packets, which it then changes.
const batch = 3 * time.Millisecond

// tunnel carries packets in those of another protocol, behind a header.
func tunnel(protocol int, header []byte) func(c *caseLab) {
	const ipHeader = 20
	return func(c *caseLab) {
		node, upstream := c.ends()
		for _, end := range []struct {
			host   string
			tun    *os.File
			remote [4]byte
		}{{lab.Node, node, [4]byte{192, 168, 49, 1}}, {lab.Upstream, upstream, [4]byte{192, 168, 49, 2}}} {
			raw := c.file(end.host, func() (int, error) {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
				if err != nil {
					return fd, err
				}
				return fd, unix.Connect(fd, &unix.SockaddrInet4{Addr: end.remote})
			})
			// What is lost is the resolver's concern.
			go packets(end.tun, func(p []byte) { _, _ = raw.Write(append(slices.Clone(header), p...)) })
			go packets(raw, func(p []byte) { _, _ = end.tun.Write(p[ipHeader+len(header):]) })
		}
	}
}

// link carries packets as they are, but what comes back together from the upstream, in small
// packets, is changed.
func link(change func(packets [][]byte) [][]byte) func(c *caseLab) {
	return func(c *caseLab) {
		node, upstream := c.ends()
		c.inHost(lab.Upstream, "ip", "link", "set", "tun0", "mtu", "576")
		go packets(node, func(p []byte) { _, _ = upstream.Write(p) })
		came := make(chan []byte, 1000)
		go func() {
			packets(upstream, func(p []byte) { came <- slices.Clone(p) })
			close(came)
		}()
		go func() {
			for p := range came {
				together := [][]byte{p}
				for end := time.After(batch); end != nil; {
					select {
					case p, more := <-came:
						if !more {
							return
						}
						together = append(together, p)
					case <-end:
						end = nil
					}
				}
				for _, p := range change(together) {
					_, _ = node.Write(p)
				}
			}
		}()
	}
}

// packets hands over what is read from a device or a raw socket, until it is closed.
func packets(from *os.File, each func(p []byte)) {
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		switch {
		case err == nil:
			each(buf[:n])
		case errors.Is(err, syscall.ENOPROTOOPT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH):
			// An ICMP error about a packet that came before the other end was open.
		default:
			return
		}
	}
}

// file opens a file in a host until the lab goes.
func (c *caseLab) file(host string, open func() (fd int, err error)) *os.File {
	fd := -1
	c.must(c.Host(host).Do(func() (err error) {
		fd, err = open()
		return err
	}))
	f := os.NewFile(uintptr(fd), host)
	c.t.Cleanup(func() { f.Close() })
	return f
}

// ends makes the two ends of a link, which somebody has to carry packets between, and the
// upstream behind it.
func (c *caseLab) ends() (node, upstream *os.File) {
	node, upstream = c.tun(lab.Node, nodeThere+"/24"), c.tun(lab.Upstream, beyond.Addr().String()+"/24")
	c.inHost(lab.Upstream, "ip", "route", "replace", lab.PodNetV4.String(), "via", nodeThere)
	s, err := c.Serve(lab.Upstream, beyond)
	c.must(err)
	s.Set("silent.test.", lab.Behaviour{Silent: true})
	s.Set("big.good.test.", lab.Behaviour{Records: 60})
	return node, upstream
}

// tun makes a device whose packets are read from and written to a file.
func (c *caseLab) tun(host, addr string) *os.File {
	f := c.file(host, func() (int, error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fd, err
		}
		request, err := unix.NewIfreq("tun0")
		if err != nil {
			return fd, err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return fd, unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	c.inHost(host, "ip", "addr", "add", addr, "dev", "tun0")
	c.inHost(host, "ip", "link", "set", "tun0", "up", "mtu", "1400")
	return f
}
