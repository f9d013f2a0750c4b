// Package capture is the first step of the tracer: it attaches the eBPF
// programs and delivers what they saw, in order of time.
package capture

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// Kind says where in the kernel a packet was seen.
type Kind uint8

// The kinds, as in bpf/dnstrace.h.
const (
	TX   Kind = 1 // given to a device for transmission
	RX   Kind = 2 // received from a device
	Drop Kind = 3 // freed before it got where it was going
	// Delivered: at its receiver's socket. A datagram is in the socket's queue, or, where
	// a Drop of the same SKB follows, would have been; a segment is what the connection
	// gets, in order or not. NetNS is the socket's, there is no device, and CgroupID is
	// the receiving socket's.
	Delivered Kind = 4
	// Read: taken from its socket, by PID, Comm, TID and Thread. Of UDP the packet is the
	// datagram that was read, as it was delivered. Of TCP there is no packet: Src and Dst
	// are the connection's, from the peer; TCPSeq and PayloadLen are the part of the
	// stream that was read, which ends exactly there.
	Read Kind = 5
)

// TCP flags (RFC 9293, section 3.1).
const (
	FlagFIN = 0x01 // ends one direction of a connection
	FlagSYN = 0x02 // opens a connection
	FlagRST = 0x04 // refuses a connection, or ends it at once
	FlagACK = 0x10 // with FlagSYN: accepts one
)

// Protocols that carry errors about DNS packets, beside trace.TransportUDP and
// trace.TransportTCP.
const (
	ProtocolICMP   = 1
	ProtocolICMPv6 = 58
)

// Tuple is one direction of a tracked connection.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// NAT is the kernel's connection tracking entry of a packet whose addresses it
// translates: what the client sent, and what comes back before it is translated
// again.
type NAT struct {
	Original, Reply Tuple
}

// Table is how full a network namespace's connection tracking is: entries, and how
// many there may be.
type Table struct {
	Count, Max uint32
}

// The kinds of tunnels.
const (
	TunnelVXLAN  = "vxlan"  // RFC 7348
	TunnelGeneve = "geneve" // RFC 8926
	TunnelIPIP   = "ipip"   // IPv4 or IPv6 in either: RFC 2003, RFC 2473, RFC 4213
	TunnelGRE    = "gre"    // RFC 2784, RFC 2890
)

// Outer is the packet of a tunnel that carried another one.
type Outer struct {
	Kind     string         // of the tunnel
	Src, Dst netip.AddrPort // the ports are 0 where the tunnel has none
	VNI      uint32         // number of the virtual network, 24 bits; of GRE its key; 0: none
}

// Fragment is a packet's place in the IP datagram that it is a part of (RFC 791,
// section 3.2; RFC 8200, section 4.5). The fragments of a datagram share Src and
// Dst addresses, protocol and ID.
type Fragment struct {
	ID     uint32
	Offset int  // bytes of the datagram's payload that come before
	Length int  // bytes of it in this packet
	More   bool // it is not the last
}

// ICMP is an error that a host or router sent about a packet with a DNS port (RFC
// 792, RFC 4443). How it was addressed is in the Packet that carries it: Src reports the
// error, Dst sent the packet that is quoted.
type ICMP struct {
	Type, Code uint8
	MTU        uint32         // where the packet was too big: what would have passed; else 0
	Protocol   uint8          // of the quoted packet: trace.TransportUDP or trace.TransportTCP
	Src, Dst   netip.AddrPort // of the quoted packet
	TCPSeq     uint32         // of the quoted packet, for TCP
	Payload    []byte         // quoted bytes above UDP; none if less than its DNS ID was quoted
}

// Packet is one packet at one place. It, its payload and its NAT are valid only until the
// function that got it returns.
type Packet struct {
	Time     int64  // ns of the kernel's monotonic clock
	SKB      uint64 // kernel address: one packet from sighting to sighting, reused after milliseconds; 0: unknown
	Sock     uint64 // Delivered, Read: kernel address of the socket, reused when it is closed
	Kind     Kind
	Protocol uint8 // trace.TransportUDP, trace.TransportTCP; ProtocolICMP, ProtocolICMPv6 for errors
	TCPFlags uint8
	TCPSeq   uint32
	Src, Dst netip.AddrPort
	// Which end is a DNS server: by its port, by what was learned of its address, or by the
	// port that the client addressed before a translation. Of an ICMP error: which end of
	// the packet that it quotes.
	SrcServer, DstServer bool
	NetNS                uint32 // inode of the network namespace; 0: unknown
	NetNSName            string // its name, if it has one
	IfIndex              uint32 // 0: the packet had no device yet
	IfName               string
	Payload              []byte // what was captured, from the front
	PayloadLen           int    // what was on the wire
	NAT                  *NAT   // nil: not translated, or not readable at this place
	PID                  int    // process that sends, or reads; 0: not proven
	Comm                 string // the process's name: that of its first thread
	TID                  int    // its thread that does; 0: not proven
	Thread               string // its name, which is Comm where it has none of its own
	CgroupID             uint64 // of the socket that sends or gets it, also where the process is not proven: inode in cgroup2; 0: unknown
	Where                string // Drop: kernel symbol; empty: not readable
	Reason               string // Drop: by the kernel's name; empty: the kernel gives none
	Description          string // Drop: what Reason and Where mean, as "netfilter hook FORWARD"; empty: unknown
	BPF                  string // Drop: by an eBPF program: where that is attached, as BPFTCIngress; empty: not by one, or unknown
	SentAt               int64  // Drop: when it was sent, ns of the kernel's monotonic clock, where it waited before it had a device; 0: unknown
	otherHost            bool   // Drop: its link layer address is another machine's
	NotForHost           bool   // Drop: because of that, as of a copy that a bridge flooded: nobody misses it where another copy went on
	Table                *Table // Drop: of the namespace, where the packet had no entry in it; nil: unknown
	VLAN                 uint16 // id of the outermost 802.1Q or 802.1ad tag; 0: none
	InnerVLAN            uint16 // id of the tag behind it; 0: none
	Unsure               bool   // Read: it was read, but when and by whom is not known
	ListenFull           bool   // Delivered: asks a listener for a connection that it has no room for; it says nothing
	Outer                *Outer // nil: no tunnel around it at this place
	// Fragment is nil for a whole datagram. The first fragment has the front of the
	// payload; of a later one Payload is empty and PayloadLen 0, its ports are those
	// of the first, without which it is not seen.
	Fragment *Fragment
	// ICMP is nil but for errors about DNS packets, whose own ports are 0 and whose
	// Payload is empty.
	ICMP *ICMP
}

// Opens tells whether the packet requests a TCP connection. It carries no question, so a
// dropped one shows only the client and the server.
func (p *Packet) Opens() bool {
	return p.Protocol == trace.TransportTCP && p.TCPFlags&(FlagSYN|FlagACK) == FlagSYN
}
