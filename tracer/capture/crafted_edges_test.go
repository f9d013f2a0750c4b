package capture

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// big is a message of which no more than the front is captured (MAX_PAYLOAD).
var big = append(slices.Clone(query), bytes.Repeat([]byte{0xab}, 2500)...)

// edges are the frames at which the parser gives up or almost does: what is truncated,
// lies about itself, or stands where it must not. With those of crafted they are one
// for every branch.
var edges = []struct {
	name      string
	ethertype uint16
	frames    [][]byte
	want      []Packet
}{
	{"IPv4 that says it is IPv6", etherIPv4, [][]byte{append([]byte{0x65}, plain[1:]...)}, nil},
	// Behind a tag: a test run refuses what is too short for its ethertype.
	{"an IPv4 header, truncated", 0x8100, [][]byte{tag(5, etherIPv4, plain[:19])}, nil},
	{"a total length less than the header", etherIPv4, [][]byte{replaced(plain, 2, 0, 19)}, nil},
	{"a total length that truncates UDP", etherIPv4, [][]byte{replaced(plain, 2, 0, 24)}, nil},
	{"an extension header in IPv4", etherIPv4, [][]byte{with4(plain4, func(h *ipv4) { h.protocol = 60 }).packet(extension(17, 0, udp(cport, dport, query)))}, nil},
	{"authentication in IPv4", etherIPv4, [][]byte{with4(plain4, func(h *ipv4) { h.protocol = 51 }).packet(extension(17, 8, udp(cport, dport, query)))}, nil},
	{"an IPv6 header, truncated", 0x8100, [][]byte{tag(5, etherIPv6, plain6[:39])}, nil},
	{"an extension header, truncated", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 60, []byte{17, 0, 1, 4})}, nil},
	{"authentication in IPv6", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 51, extension(17, 8, udp(cport, dport, query)))}, nil},

	{"UDP, truncated", etherIPv4, [][]byte{plain4.packet(udp(cport, dport, query)[:7])}, nil},
	{"more than is captured", etherIPv4, [][]byte{plain4.packet(udp(cport, dport, big))},
		[]Packet{with(seen4(), func(p *Packet) { p.Payload, p.PayloadLen = big[:2048], len(big) })}},
	{"TCP over IPv6", etherIPv6, [][]byte{ipv6("2001:db8::1", "2001:db8::2", 6, tcp(cport, dport, 5, FlagACK, nil, query))},
		[]Packet{with(tcpSeen(5, FlagACK, query), func(p *Packet) { p.Src, p.Dst = sixC, sixS })}},
	{"a TCP data offset within the header", etherIPv4, [][]byte{tcp4(replaced(tcp(cport, dport, 5, FlagACK, nil, query), 12, 0x40))}, nil},
	{"a TCP data offset beyond the packet", etherIPv4, [][]byte{tcp4(replaced(tcp(cport, dport, 5, FlagACK, nil, query), 12, 0xf0))}, nil},

	{"a tag, truncated", 0x8100, [][]byte{{0, 5, 8}}, nil},
	{"VXLAN, truncated", etherIPv4, [][]byte{node.packet(udp(12345, 4789, vxlan(77, plain[:15])))}, nil},
	{"VXLAN in fragments", etherIPv4, [][]byte{with4(node, func(h *ipv4) { h.id, h.fragment = 4713, 0x2000 }).packet(
		udp(12345, 4789, vxlan(77, ethernet(etherIPv4, plain))))}, nil},
	{"Geneve with IPv4 and no Ethernet", etherIPv4, [][]byte{node.packet(udp(12345, 6081, geneve(3, etherIPv4, nil, plain)))},
		[]Packet{with(seen4(), func(p *Packet) { p.Outer = outer(6081, 3) })}},
	{"Geneve with options beyond the packet", etherIPv4, [][]byte{node.packet(udp(12345, 6081, replaced(geneve(3, etherIPv4, nil, plain), 0, 0x3f)))}, nil},
	{"ICMP inside VXLAN", etherIPv4, [][]byte{node.packet(udp(12345, 4789, vxlan(77, ethernet(etherIPv4, router.packet(icmp(3, 3, 0, plain))))))},
		[]Packet{with(icmpError(3, 3, 0, query), func(p *Packet) { p.Outer = outer(4789, 77) })}},

	{"GRE, truncated", etherIPv4, [][]byte{carrying(47, gre(0, etherIPv4, nil, nil)[:3])}, nil},
	{"GRE, truncated before its key", etherIPv4, [][]byte{carrying(47, gre(0xa000, etherIPv4, be(4, 0), nil))}, nil},
	{"GRE, truncated in its Ethernet header", etherIPv4, [][]byte{carrying(47, gre(0, 0x6558, nil, ethernet(etherIPv4, plain)[:13]))}, nil},
	{"IPv4 in IPv4, truncated", etherIPv4, [][]byte{carrying(4, plain[:19])}, nil},
	{"IPv4 that the tunnel says is IPv6", etherIPv4, [][]byte{carrying(41, plain)}, nil},
	{"IPv4 in fragments of IPv4", etherIPv4, [][]byte{with4(node, func(h *ipv4) { h.protocol, h.id, h.fragment = 4, 4715, 0x2000 }).packet(plain)}, nil},
	{"ICMP inside GRE", etherIPv4, [][]byte{carrying(47, gre(0, etherIPv4, nil, router.packet(icmp(3, 3, 0, plain))))},
		[]Packet{within(icmpError(3, 3, 0, query), TunnelGRE, 0)}},
	{"ICMP about IPv4 in IPv4", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, carrying(4, plain)))}, nil},
	{"Geneve, truncated", etherIPv4, [][]byte{node.packet(udp(12345, 6081, geneve(3, etherIPv4, nil, nil)[:7]))}, nil},

	{"ICMP parameter problem", etherIPv4, [][]byte{router.packet(icmp(12, 0, 0, plain))}, []Packet{icmpError(12, 0, 0, query)}},
	{"ICMP, truncated", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, nil)[:7])}, nil},
	{"ICMP that quotes too little", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, plain[:27]))}, nil},
	{"ICMP about a later fragment", etherIPv4, [][]byte{router.packet(icmp(11, 1, 0, with4(plain4, func(h *ipv4) { h.id, h.fragment = 4711, 3 }).packet(query)))}, nil},
	{"ICMP about a tunnel", etherIPv4, [][]byte{router.packet(icmp(3, 3, 0, node.packet(udp(12345, 4789, vxlan(77, ethernet(etherIPv4, plain))))))}, nil},
	{"ICMP in fragments", etherIPv4, [][]byte{with4(router, func(h *ipv4) { h.id, h.fragment = 4714, 0x2000 }).packet(icmp(3, 3, 0, plain))}, nil},
	{"ICMP in IPv6", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 1, icmp(3, 3, 0, plain))}, nil},
	{"ICMPv6 in IPv4", etherIPv4, [][]byte{with4(router, func(h *ipv4) { h.protocol = 58 }).packet(icmp(1, 4, 0, plain6))}, nil},
	{"ICMPv6 unreachable", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(1, 4, 0, plain6))}, []Packet{icmp6Error(1, 4)}},
	{"ICMPv6 time exceeded", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(3, 0, 0, plain6))}, []Packet{icmp6Error(3, 0)}},
	{"ICMPv6 parameter problem", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(4, 1, 40, plain6))}, []Packet{icmp6Error(4, 1)}},
	{"ICMPv6 that is no error", etherIPv6, [][]byte{ipv6("2001:db8::ff", "2001:db8::1", 58, icmp(5, 0, 0, plain6))}, nil},
}

// replaced is a copy of b with other bytes from an offset on.
func replaced(b []byte, at int, with ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], with)
	return b
}

func icmp6Error(kind, code uint8) Packet {
	return Packet{Protocol: ProtocolICMPv6, Src: netip.MustParseAddrPort("[2001:db8::ff]:0"), Dst: netip.MustParseAddrPort("[2001:db8::1]:0"),
		ICMP: &ICMP{Type: kind, Code: code, Protocol: trace.TransportUDP, Src: sixC, Dst: sixS, Payload: query}}
}
