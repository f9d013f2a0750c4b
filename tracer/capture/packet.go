// Package capture is the first step of the tracer: it attaches the eBPF
// programs and delivers what they saw, in order of time.
package capture

import (
	"net/netip"
)

// Kind says where in the kernel a packet was seen.
type Kind uint8

// The kinds, as in bpf/dnstrace.h.
const (
	TX   Kind = 1 // given to a device for transmission
	RX   Kind = 2 // received from a device
	Drop Kind = 3 // freed before it got where it was going
)

// FlagSYN is the TCP flag that opens a connection (RFC 9293, section 3.1).
const FlagSYN = 0x02

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

// Packet is one packet at one place. It and its payload are the receiver's only
// until the function that got it returns.
type Packet struct {
	Time       int64  // ns of the kernel's monotonic clock
	SKB        uint64 // kernel address: one packet from sighting to sighting, reused after milliseconds
	Kind       Kind
	Protocol   uint8 // trace.TransportUDP, trace.TransportTCP
	TCPFlags   uint8
	TCPSeq     uint32
	Src, Dst   netip.AddrPort
	NetNS      uint32 // inode of the network namespace; 0: unknown
	NetNSName  string // its name, if it has one
	IfIndex    uint32 // 0: the packet had no device yet
	IfName     string
	Payload    []byte // what was captured, from the front
	PayloadLen int    // what was on the wire
	NAT        *NAT   // nil: not translated, or not readable at this place
	PID        int    // process that owns the sending socket; 0: not proven
	Comm       string
	Where      string // Drop: kernel symbol; empty: not readable
	Reason     string // Drop: by the kernel's name; empty: the kernel gives none
}
