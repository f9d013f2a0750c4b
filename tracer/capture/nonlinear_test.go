package capture

import (
	"bytes"
	"cmp"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// payloadAccesses are the ways to non-linear payload that this kernel has: the old one
// works on every kernel.
func payloadAccesses() map[string]payloadAccess {
	ways := map[string]payloadAccess{"copied": copiedByKernel}
	if kernelAtLeast(6, 12) {
		ways["in place"] = readInPlace
	}
	return ways
}

// pattern returns n bytes that are not the same from one place to another.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// onSocket does something with the file descriptor of a connection.
func onSocket(t *testing.T, conn interface {
	File() (*os.File, error)
}, do func(fd int) error) {
	t.Helper()
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := do(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// scattered returns a file that has every piece of b, of so many bytes, in a page of
// its own, and a function that gives it to a socket in the right order: the kernel
// sends the file's own pages.
func scattered(t *testing.T, b []byte, piece int) func(fd int) error {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "pages"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	const page = 4096
	for i, part := range slices.Collect(slices.Chunk(b, piece)) {
		// Some way into the page, so that an offset that is not heeded shows.
		if _, err := f.WriteAt(part, int64(i)*page+100); err != nil {
			t.Fatal(err)
		}
	}
	return func(fd int) error {
		for i, part := range slices.Collect(slices.Chunk(b, piece)) {
			at := int64(i)*page + 100
			if n, err := unix.Sendfile(fd, int(f.Fd()), &at, len(part)); err != nil || n != len(part) {
				return cmp.Or(err, error(unix.EIO))
			}
		}
		return nil
	}
}

// DNS over TCP with non-linear payload: segments with data, and the SYNs.
func TestTCPPayload(t *testing.T) {
	for name, access := range payloadAccesses() {
		t.Run(name, func(t *testing.T) {
			t.Run("one page", func(t *testing.T) {
				message := pattern(320)
				testTCPPayload(t, access, [][]byte{message}, func(conn *net.TCPConn) error {
					_, err := conn.Write(message)
					return err
				})
			})
			t.Run("several pages", func(t *testing.T) {
				message := pattern(1500)
				send := scattered(t, message, 200)
				testTCPPayload(t, access, [][]byte{message}, func(conn *net.TCPConn) error {
					onSocket(t, conn, func(fd int) error {
						// Corked, so that they are in one segment.
						if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1); err != nil {
							return err
						}
						if err := send(fd); err != nil {
							return err
						}
						return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, 0)
					})
					return nil
				})
			})
			t.Run("several segments, one longer than what is captured", func(t *testing.T) {
				message := pattern(5000)
				segments := [][]byte{message[:2], message[2:700], message[700:]}
				testTCPPayload(t, access, segments, func(conn *net.TCPConn) error {
					for _, s := range segments {
						if _, err := conn.Write(s); err != nil {
							return err
						}
					}
					return nil
				})
			})
		})
	}
}

// maxPayload is how many bytes of a packet's payload are captured (bpf/state.h).
const maxPayload = 2048

func testTCPPayload(t *testing.T, access payloadAccess, segments [][]byte, send func(*net.TCPConn) error) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := l.Addr().(*net.TCPAddr).AddrPort()
	source, err := open(Config{Ports: []uint16{server.Port()}}, access, arrivalNone)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	conn, err := net.Dial("tcp4", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := send(conn.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	syns, data := 0, map[Kind][]Packet{}
	for _, p := range poll(t, source) {
		switch {
		case p.TCPFlags&FlagSYN != 0 && p.PayloadLen == 0:
			syns++
		case p.PayloadLen > 0 && p.Dst == server:
			data[p.Kind] = append(data[p.Kind], p)
		default:
			t.Errorf("%+v", p)
		}
	}
	// SYN and SYN-ACK, each sent and received.
	if syns != 4 {
		t.Errorf("%d SYNs", syns)
	}
	for _, kind := range []Kind{TX, RX} {
		compareSegments(t, kind, data[kind], segments)
	}
	if c := source.Counters(); c.Lost != 0 {
		t.Errorf("lost %d", c.Lost)
	}
}

func compareSegments(t *testing.T, kind Kind, got []Packet, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("kind %d: %d segments with data, expected %d", kind, len(got), len(want))
	}
	for i, p := range got {
		captured := want[i][:min(len(want[i]), maxPayload)]
		if p.PayloadLen != len(want[i]) || !bytes.Equal(p.Payload, captured) {
			t.Errorf("kind %d: captured %d of %d bytes, expected %d of %d, or others", kind, len(p.Payload), p.PayloadLen, len(captured), len(want[i]))
		}
		if i > 0 && p.Time < got[i-1].Time {
			t.Errorf("kind %d: not in order of time", kind)
		}
	}
}

// A non-linear datagram, as network cards deliver them, that meets no socket: payload and
// parts of its events, whichever comes first.
func TestNonLinearDrop(t *testing.T) {
	for name, access := range payloadAccesses() {
		t.Run(name, func(t *testing.T) {
			closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			server := closed.LocalAddr().(*net.UDPAddr)
			if err := closed.Close(); err != nil {
				t.Fatal(err)
			}
			source, err := open(Config{Ports: []uint16{server.AddrPort().Port()}}, access, arrivalNone)
			if err != nil {
				t.Fatal(err)
			}
			defer source.Close()
			conn, err := net.DialUDP("udp4", nil, server)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			message := pattern(300)
			onSocket(t, conn, scattered(t, message, len(message)))
			seen := map[Kind]bool{}
			for _, p := range poll(t, source) {
				if p.Protocol != trace.TransportUDP { // ICMP says that the port is closed
					continue
				}
				seen[p.Kind] = true
				checkNonLinear(t, &p, server.AddrPort(), message)
			}
			if !seen[TX] || !seen[RX] || !seen[Drop] {
				t.Errorf("seen %v", seen)
			}
		})
	}
}

func checkNonLinear(t *testing.T, p *Packet, server netip.AddrPort, message []byte) {
	t.Helper()
	if p.Dst != server || p.PayloadLen != len(message) || !bytes.Equal(p.Payload, message) {
		t.Errorf("kind %d: %d of %d bytes: %+v", p.Kind, len(p.Payload), p.PayloadLen, p)
	}
	if own := ownCgroup(t); p.Kind == TX && own != 0 && p.CgroupID != own {
		t.Errorf("sent from cgroup %d, expected %d", p.CgroupID, own)
	}
	// Before the kernel gave reasons (5.17) the place has two.
	if p.Kind == Drop && !strings.HasPrefix(p.Description, "no socket") && p.Where != "" {
		t.Errorf("dropped in %q: %q", p.Where, p.Description)
	}
}

// Without perf buffers the tracer goes on, and says what is not seen.
func TestWithoutPerfBuffers(t *testing.T) {
	spec, err := newSpec(Config{Ports: []uint16{53}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var s Source
	events, err := s.prepareNonLinear(spec, copiedByKernel, 0)
	if err != nil || events != nil || s.perfReader != nil {
		t.Fatalf("%v, map %v, reader %v", err, events, s.perfReader)
	}
	var given bool
	if err := spec.Variables[bpf.DnstraceVarOutputPaged].Get(&given); err != nil || given {
		t.Errorf("the programs are to fill them: %t, %v", given, err)
	}
	if f := probeNonLinearPayload(&s); f.OK || f.Required || f.Detail == "" {
		t.Errorf("%+v", f)
	}
	if err := s.drainPerfBuffers(); err != nil {
		t.Error(err)
	}
}

// Perf buffers that nobody reads in time: what they lose is counted, and fewer lookups
// are reported from then on.
func TestPerfBuffersFull(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	source, err := open(Config{Ports: []uint16{l.Addr().(*net.TCPAddr).AddrPort().Port()}, RingBytes: os.Getpagesize()}, copiedByKernel, arrivalNone)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A buffer holds one or two of the segments, each of which is sent and received.
	for range 100 {
		if _, err := conn.Write(pattern(maxPayload)); err != nil {
			t.Fatal(err)
		}
	}
	packets := poll(t, source)
	c := source.Counters()
	// More may have come after the last poll, or may be a buffer that was freed and is no drop.
	if c.Lost == 0 || c.Emitted < uint64(len(packets)) || len(packets) == 0 || c.ReportedShare == 1 {
		t.Errorf("%d packets, %+v", len(packets), c)
	}
}
