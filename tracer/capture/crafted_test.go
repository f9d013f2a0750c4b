package capture

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
)

// What the crafted packets have in common: a client's port, and the port that the
// programs observe, which nobody else uses.
const (
	cport = 61054
	dport = 61053
)

var (
	query  = []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04test\x00\x00\x01\x00\x01")
	client = netip.MustParseAddrPort("192.0.2.1:61054")
	server = netip.MustParseAddrPort("192.0.2.2:61053")
	sixC   = netip.MustParseAddrPort("[2001:db8::1]:61054")
	sixS   = netip.MustParseAddrPort("[2001:db8::2]:61053")

	plain4 = ipv4{src: "192.0.2.1", dst: "192.0.2.2", protocol: 17}
	plain  = plain4.packet(udp(cport, dport, query))
	plain6 = ipv6("2001:db8::1", "2001:db8::2", 17, udp(cport, dport, query))
	node   = ipv4{src: "198.51.100.1", dst: "198.51.100.2", protocol: 17}
	router = ipv4{src: "203.0.113.1", dst: "192.0.2.1", protocol: 1}
)

func seen4() Packet {
	return Packet{Protocol: trace.TransportUDP, Src: client, Dst: server, Payload: query, PayloadLen: len(query)}
}

func seen6() Packet {
	p := seen4()
	p.Src, p.Dst = sixC, sixS
	return p
}

func with(p Packet, change func(*Packet)) Packet {
	change(&p)
	return p
}

func outer(dport uint16, vni uint32) *Outer {
	kind := TunnelVXLAN
	if dport == 6081 {
		kind = TunnelGeneve
	}
	return &Outer{Kind: kind, Src: netip.MustParseAddrPort("198.51.100.1:12345"),
		Dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), dport), VNI: vni}
}

// within is a packet that was seen in a tunnel without ports.
func within(p Packet, kind string, key uint32) Packet {
	p.Outer = &Outer{Kind: kind, Src: netip.MustParseAddrPort("198.51.100.1:0"), Dst: netip.MustParseAddrPort("198.51.100.2:0"), VNI: key}
	return p
}

// within6 is one whose outer packet is IPv6.
func within6(p Packet, kind string, key uint32) Packet {
	p.Outer = &Outer{Kind: kind, Src: netip.MustParseAddrPort("[2001:db8:1::1]:0"), Dst: netip.MustParseAddrPort("[2001:db8:1::2]:0"), VNI: key}
	return p
}

// carrying is the packet of a tunnel between nodes, by an IP protocol.
func carrying(protocol uint64, inner []byte) []byte {
	return with4(node, func(h *ipv4) { h.protocol = protocol }).packet(inner)
}

func carrying6(protocol uint64, inner []byte) []byte {
	return ipv6("2001:db8:1::1", "2001:db8:1::2", protocol, inner)
}

// crafted are frames that the parser follows to the end, or to a port that is not
// observed.
var crafted = []struct {
	name      string
	ethertype uint16
	frames    [][]byte // without the Ethernet header
	want      []Packet // none: not to be seen
}{
	{"IPv4", etherIPv4, [][]byte{plain}, []Packet{seen4()}},
	{"IPv4 options", etherIPv4, [][]byte{with4(plain4, func(h *ipv4) { h.options = make([]byte, 40) }).packet(udp(cport, dport, query))}, []Packet{seen4()}},
	{"IPv6", etherIPv6, [][]byte{plain6}, []Packet{seen6()}},
	{"another port", etherIPv4, [][]byte{plain4.packet(udp(cport, dport+1, query))}, nil},
	{"another protocol", etherIPv4, [][]byte{with4(plain4, func(h *ipv4) { h.protocol = 132 }).packet(udp(cport, dport, query))}, nil},
	{"less than a DNS header", etherIPv4, [][]byte{plain4.packet(udp(cport, dport, query[:11]))}, nil},
	{"less than a DNS header, of a server", etherIPv4, [][]byte{plain4.packet(udp(dport, cport, query[:11]))}, []Packet{with(seen4(), func(p *Packet) {
		p.Src, p.Dst = netip.AddrPortFrom(p.Src.Addr(), dport), netip.AddrPortFrom(p.Dst.Addr(), cport)
		p.Payload, p.PayloadLen = query[:11], 11
	})}},
	{"an IPv4 header too short", etherIPv4, [][]byte{append([]byte{0x44}, plain[1:]...)}, nil},
	{"IPv6 that says it is IPv4", etherIPv6, [][]byte{append([]byte{0x40}, plain6[1:]...)}, nil},

	{"SYN", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 7, FlagSYN, make([]byte, 20), nil))},
		[]Packet{tcpSeen(7, FlagSYN, nil)}},
	{"Fast Open", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 7, FlagSYN, make([]byte, 12), query))},
		[]Packet{tcpSeen(7, FlagSYN, query)}},
	{"TCP data", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 1<<31, FlagACK, nil, query))},
		[]Packet{tcpSeen(1<<31, FlagACK, query)}},
	{"RST", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 9, FlagRST|FlagACK, nil, nil))}, []Packet{tcpSeen(9, FlagRST|FlagACK, nil)}},
	{"FIN", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 9, FlagFIN|FlagACK, nil, nil))}, []Packet{tcpSeen(9, FlagFIN|FlagACK, nil)}},
	{"FIN with data", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 9, FlagFIN|FlagACK, nil, query))}, []Packet{tcpSeen(9, FlagFIN|FlagACK, query)}},
	{"bare ACK", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 8, FlagACK, nil, nil))}, nil},
	{"a TCP header too short", etherIPv4, [][]byte{tcp4(tcp(cport, dport, 8, FlagACK, nil, query)[:16])}, nil},

	{"802.1Q", 0x8100, [][]byte{tag(5, etherIPv4, plain)}, []Packet{with(seen4(), func(p *Packet) { p.VLAN = 5 })}},
	{"802.1ad", 0x88a8, [][]byte{tag(4094, 0x8100, tag(6, etherIPv6, plain6))},
		[]Packet{with(seen6(), func(p *Packet) { p.VLAN, p.InnerVLAN = 4094, 6 })}},
	{"a tag around something else", 0x8100, [][]byte{tag(5, 0x0806, plain)}, nil},
	// The packet before left its protocol and addresses behind.
	{"a tag around nothing", 0x8100, [][]byte{tag(5, etherIPv4, plain4.packet(udp(cport, dport+1, query))), tag(5, 0, udp(cport, dport, query))}, nil},

	{"VXLAN", etherIPv4, [][]byte{node.packet(udp(12345, 4789, vxlan(77, ethernet(etherIPv4, plain))))},
		[]Packet{with(seen4(), func(p *Packet) { p.Outer = outer(4789, 77) })}},
	{"VXLAN on the old port", etherIPv4, [][]byte{node.packet(udp(12345, 8472, vxlan(1, ethernet(etherIPv6, plain6))))},
		[]Packet{with(seen6(), func(p *Packet) { p.Outer = outer(8472, 1) })}},
	{"VXLAN with a tag", etherIPv4, [][]byte{node.packet(udp(12345, 4789, vxlan(77, ethernet(0x8100, tag(9, etherIPv4, plain)))))},
		[]Packet{with(seen4(), func(p *Packet) { p.Outer, p.VLAN = outer(4789, 77), 9 })}},
	{"VXLAN without a network", etherIPv4, [][]byte{node.packet(udp(12345, 4789, append(make([]byte, 8), ethernet(etherIPv4, plain)...)))}, nil},
	{"VXLAN around nothing", etherIPv4, [][]byte{node.packet(udp(12345, 4789, vxlan(77, ethernet(0, udp(cport, dport, query)))))}, nil},
	{"Geneve around nothing", etherIPv4, [][]byte{node.packet(udp(12345, 6081, geneve(3, 0, nil, udp(cport, dport, query))))}, nil},
	{"VXLAN in VXLAN", etherIPv4, [][]byte{node.packet(udp(12345, 4789,
		vxlan(1, ethernet(etherIPv4, node.packet(udp(12345, 4789, vxlan(2, ethernet(etherIPv4, plain))))))))}, nil},
	{"Geneve", etherIPv4, [][]byte{node.packet(udp(12345, 6081, geneve(1<<24-1, 0x6558, nil, ethernet(etherIPv4, plain))))},
		[]Packet{with(seen4(), func(p *Packet) { p.Outer = outer(6081, 1<<24-1) })}},
	{"Geneve with options and no Ethernet", etherIPv4, [][]byte{node.packet(udp(12345, 6081, geneve(3, etherIPv6, make([]byte, 24), plain6)))},
		[]Packet{with(seen6(), func(p *Packet) { p.Outer = outer(6081, 3) })}},

	{"IPv4 in IPv4", etherIPv4, [][]byte{carrying(4, plain)}, []Packet{within(seen4(), TunnelIPIP, 0)}},
	{"IPv6 in IPv4", etherIPv4, [][]byte{carrying(41, plain6)}, []Packet{within(seen6(), TunnelIPIP, 0)}},
	{"IPv4 in IPv6", etherIPv6, [][]byte{carrying6(4, plain)}, []Packet{within6(seen4(), TunnelIPIP, 0)}},
	{"IPv6 in IPv6", etherIPv6, [][]byte{carrying6(41, plain6)}, []Packet{within6(seen6(), TunnelIPIP, 0)}},
	{"IPv4 in IPv4 in IPv4", etherIPv4, [][]byte{carrying(4, carrying(4, plain))}, nil},
	{"TCP in IPv4 in IPv4", etherIPv4, [][]byte{carrying(4, tcp4(tcp(cport, dport, 9, FlagSYN, nil, nil)))},
		[]Packet{within(tcpSeen(9, FlagSYN, nil), TunnelIPIP, 0)}},
	{"GRE", etherIPv4, [][]byte{carrying(47, gre(0, etherIPv4, nil, plain))}, []Packet{within(seen4(), TunnelGRE, 0)}},
	{"GRE with a key", etherIPv4, [][]byte{carrying(47, gre(0x2000, etherIPv6, be(4, 1<<31+7), plain6))}, []Packet{within(seen6(), TunnelGRE, 1<<31+7)}},
	{"GRE with everything", etherIPv4, [][]byte{carrying(47, gre(0xb000, etherIPv4, slices.Concat(be(4, 0), be(4, 5), be(4, 6)), plain))},
		[]Packet{within(seen4(), TunnelGRE, 5)}},
	{"GRE with Ethernet", etherIPv6, [][]byte{carrying6(47, gre(0x1000, 0x6558, be(4, 6), ethernet(0x8100, tag(9, etherIPv4, plain))))},
		[]Packet{within6(with(seen4(), func(p *Packet) { p.VLAN = 9 }), TunnelGRE, 0)}},
	{"GRE with routing", etherIPv4, [][]byte{carrying(47, gre(0x4000, etherIPv4, nil, plain))}, nil},
	{"GRE of another version", etherIPv4, [][]byte{carrying(47, gre(1, etherIPv4, nil, plain))}, nil},
	{"GRE around nothing", etherIPv4, [][]byte{carrying(47, gre(0, 0, nil, udp(cport, dport, query)))}, nil},
	{"VXLAN in IPv4 in IPv4", etherIPv4, [][]byte{carrying(4, node.packet(udp(12345, 4789, vxlan(77, ethernet(etherIPv4, plain)))))}, nil},

	{"extension headers", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 0,
		extension(43, 0, extension(60, 16, extension(17, 8, udp(cport, dport, query)))))}, []Packet{seen6()}},
	{"too many extension headers", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 60, manyExtensions(12))}, nil},
	{"an extension header longer than the packet", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 60,
		append([]byte{17, 255}, udp(cport, dport, query)...))}, nil},
	{"alone in its fragment", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 44, fragment6(17, 0, false, 9, udp(cport, dport, query)))},
		[]Packet{seen6()}},

	{"IPv4 fragments", etherIPv4, [][]byte{
		with4(plain4, func(h *ipv4) { h.id, h.fragment = 4711, 0x2000 }).packet(udp(cport, dport, query[:16])),
		with4(plain4, func(h *ipv4) { h.id, h.fragment = 4711, 3 }).packet(query[16:]),
		with4(plain4, func(h *ipv4) { h.id, h.fragment = 4712, 3 }).packet(query[16:]),
	}, []Packet{
		fragmentSeen(seen4(), query[:16], Fragment{ID: 4711, Length: 24, More: true}),
		fragmentSeen(seen4(), nil, Fragment{ID: 4711, Offset: 24, Length: len(query) - 16}),
	}},
	{"IPv6 fragments", etherIPv6, [][]byte{
		ipv6("2001:db8::1", "2001:db8::2", 44, fragment6(60, 0, true, 1<<31, extension(17, 0, udp(cport, dport, query[:16])))),
		ipv6("2001:db8::1", "2001:db8::2", 44, fragment6(60, 32, true, 1<<31, query[16:])),
	}, []Packet{
		fragmentSeen(seen6(), query[:16], Fragment{ID: 1 << 31, Length: 32, More: true}),
		fragmentSeen(seen6(), nil, Fragment{ID: 1 << 31, Offset: 32, Length: len(query) - 16, More: true}),
	}},

	{"ICMP port unreachable", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, plain))}, []Packet{icmpError(3, 3, 0, query)}},
	{"ICMP fragmentation needed", etherIPv4, [][]byte{router.packet(icmp(3, 4, 1400, plain))}, []Packet{icmpError(3, 4, 1400, query)}},
	{"ICMP that quotes no more than ports", etherIPv4, [][]byte{router.packet(icmp(11, 0, 0, plain[:28]))}, []Packet{icmpError(11, 0, 0, nil)}},
	{"ICMP about TCP", etherIPv4, [][]byte{router.packet(icmp(3, 1, 0, tcp4(tcp(cport, dport, 99, FlagSYN, nil, nil))[:28]))},
		[]Packet{with(icmpError(3, 1, 0, nil), func(p *Packet) { p.ICMP.Protocol, p.ICMP.TCPSeq = trace.TransportTCP, 99 })}},
	{"ICMP echo", etherIPv4, [][]byte{router.packet(icmp(8, 0, 0, plain))}, nil},
	{"ICMP about another port", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, plain4.packet(udp(cport, 1, query))))}, nil},
	{"ICMP about ICMP", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, router.packet(icmp(3, 3, 0, plain))))}, nil},
	{"ICMPv6 packet too big", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(2, 0, 1280, plain6))},
		[]Packet{{Protocol: ProtocolICMPv6, Src: netip.MustParseAddrPort("[2001:db8::ff]:0"), Dst: netip.MustParseAddrPort("[2001:db8::1]:0"),
			ICMP: &ICMP{Type: 2, MTU: 1280, Protocol: trace.TransportUDP, Src: sixC, Dst: sixS, Payload: query}}}},
	{"neighbour solicitation", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(135, 0, 0, plain6))}, nil},
}

func with4(h ipv4, change func(*ipv4)) ipv4 {
	change(&h)
	return h
}

func tcp4(segment []byte) []byte {
	return with4(plain4, func(h *ipv4) { h.protocol = 6 }).packet(segment)
}

func tcpSeen(seq uint32, flags uint8, payload []byte) Packet {
	return Packet{Protocol: trace.TransportTCP, TCPSeq: seq, TCPFlags: flags, Src: client, Dst: server, Payload: payload, PayloadLen: len(payload)}
}

func fragmentSeen(p Packet, payload []byte, f Fragment) Packet {
	p.Payload, p.PayloadLen, p.Fragment = payload, len(payload), &f
	return p
}

func icmpError(kind, code uint8, mtu uint32, quoted []byte) Packet {
	return Packet{Protocol: ProtocolICMP, Src: netip.MustParseAddrPort("203.0.113.1:0"), Dst: netip.MustParseAddrPort("192.0.2.1:0"),
		ICMP: &ICMP{Type: kind, Code: code, MTU: mtu, Protocol: trace.TransportUDP, Src: client, Dst: server, Payload: quoted}}
}

func manyExtensions(n int) []byte {
	b := udp(cport, dport, query)
	next := uint64(17)
	for range n {
		b, next = extension(next, 0, b), 60
	}
	return b
}

// Every branch of the parser, by packets that are put on the loopback device of a
// namespace of its own, as they are: seen once on its way out and once on its way
// in, or not at all.
func TestCraftedPackets(t *testing.T) {
	netns, send := loopbackOfItsOwn(t)
	source := openIn(t, netns)
	for _, tc := range slices.Concat(crafted, edges) {
		t.Run(tc.name, func(t *testing.T) {
			for _, f := range tc.frames {
				send(tc.ethertype, ethernet(uint64(tc.ethertype), f))
			}
			got := map[Kind][]Packet{}
			for _, p := range poll(t, source) {
				got[p.Kind] = append(got[p.Kind], p)
			}
			for _, kind := range []Kind{TX, RX} {
				if len(got[kind]) != len(tc.want) {
					t.Fatalf("kind %d: %d packets, expected %d: %+v", kind, len(got[kind]), len(tc.want), got[kind])
				}
				for i := range tc.want {
					compare(t, &got[kind][i], &tc.want[i])
				}
			}
		})
	}
}

// compare leaves out what is the same for all: where and when.
func compare(t *testing.T, got, want *Packet) {
	t.Helper()
	if got.IfName != "lo" || got.NetNS == 0 || got.Time == 0 {
		t.Errorf("seen at %q in %d", got.IfName, got.NetNS)
	}
	if ofServer := want.Src.Port() == dport; got.SrcServer != ofServer || got.DstServer == ofServer {
		t.Errorf("the server is the source %v, the destination %v", got.SrcServer, got.DstServer)
	}
	g := *got
	g.SrcServer, g.DstServer = false, false
	g.Time, g.SKB, g.Kind, g.NetNS, g.NetNSName, g.IfIndex, g.IfName, g.CgroupID = 0, 0, 0, 0, "", 0, "", 0
	g.PID, g.Comm, g.TID, g.Thread = 0, "", 0, ""
	if !bytes.Equal(g.Payload, want.Payload) {
		t.Errorf("payload %x, expected %x", g.Payload, want.Payload)
	}
	g.Payload = want.Payload
	if g.ICMP != nil && want.ICMP != nil && bytes.Equal(g.ICMP.Payload, want.ICMP.Payload) {
		g.ICMP.Payload = want.ICMP.Payload
	}
	if !reflect.DeepEqual(&g, want) {
		t.Errorf("got  %+v\nwant %+v\nicmp %+v, want %+v\nfragment %+v, want %+v\nouter %+v, want %+v", g, *want,
			g.ICMP, want.ICMP, g.Fragment, want.Fragment, g.Outer, want.Outer)
	}
}

// loopbackOfItsOwn returns a function that sends frames on the loopback device of
// a new network namespace, which ends with the test. prepare runs in it.
func loopbackOfItsOwn(t *testing.T, prepare ...func() error) (netns string, send func(ethertype uint16, frame []byte)) {
	t.Helper()
	fd, err := packetSocket(prepare)
	if err != nil {
		t.Fatal(os.NewSyscallError("a socket in a namespace", err))
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		t.Fatal(os.NewSyscallError("the namespace of a socket", err))
	}
	defer unix.Close(ns)
	return netnsAt(t, fmt.Sprintf("/proc/self/fd/%d", ns)), func(ethertype uint16, frame []byte) {
		t.Helper()
		// ENOBUFS says that it was dropped on its way out.
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Protocol: ethertype<<8 | ethertype>>8, Ifindex: 1}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(os.NewSyscallError("send", err))
		}
	}
}

// openIn observes one namespace: others may send what these tests send, too.
func openIn(t testing.TB, netns string) *Source {
	t.Helper()
	source, err := openDevices(Config{Ports: []uint16{dport}, RingBytes: 1 << 18, NetNS: []string{netns}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })
	return source
}

func netnsAt(t testing.TB, path string) string {
	t.Helper()
	inode, err := inodeOf(path)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(uint64(inode), 10)
}

// packetSocket opens a socket in a new namespace whose loopback device is up; the
// socket keeps the namespace.
func packetSocket(prepare []func() error) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		// Not unlocked: the thread ends with the goroutine, and with it its namespace.
		runtime.LockOSThread()
		fd, err := func() (int, error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return -1, err
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			request, err := unix.NewIfreq("lo")
			if err != nil {
				return -1, err
			}
			request.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
				return -1, err
			}
			for _, f := range prepare {
				if err := f(); err != nil {
					return -1, err
				}
			}
			return fd, nil
		}()
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}

// A tag that the device is to put in, as on a VLAN device: it is not in the packet
// yet. An eBPF program at tcx, which comes first, since Linux 6.6, adds it.
func TestOffloadedTag(t *testing.T) {
	if !kernelAtLeast(6, 6) {
		return
	}
	push, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 0x0081), // 802.1Q in network order
		asm.Mov.Imm(asm.R3, 7),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, -1), // go on
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer push.Close()
	var attached link.Link
	netns, send := loopbackOfItsOwn(t, func() (err error) {
		attached, err = link.AttachTCX(link.TCXOptions{Interface: 1, Program: push, Attach: ebpf.AttachTCXEgress})
		return err
	})
	defer attached.Close()
	source := openIn(t, netns)
	send(etherIPv4, ethernet(etherIPv4, plain))
	// Nobody on loopback has the address that the frame is for.
	packets := slices.DeleteFunc(poll(t, source), func(p Packet) bool { return p.NotForHost })
	if len(packets) != 2 {
		t.Fatalf("%d packets, expected 2: %+v", len(packets), packets)
	}
	want := with(seen4(), func(p *Packet) { p.VLAN = 7 })
	for i := range packets {
		compare(t, &packets[i], &want)
	}
}
