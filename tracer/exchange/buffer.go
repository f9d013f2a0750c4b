package exchange

import (
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

const (
	// sameSKB is how long a buffer surely holds the same packet: the kernel reuses it soon
	// after. A packet crosses a node in microseconds.
	sameSKB = int64(2 * time.Millisecond)
	// waitsForCPU is how long a packet may take between two places of an overloaded node: its
	// buffer then holds the same packet if it holds the same message.
	waitsForCPU = int64(100 * time.Millisecond)
)

// buffers maps the buffers of packets to exchanges, to recognize a packet at its next place,
// also if its addresses were translated. It has room for what passes a busy node while a
// packet waits some milliseconds for a processor; a collision evicts the older entry.
type buffers [1 << bufferBits]buffer

const bufferBits = 12

// buffer is the last sighting of what a buffer held.
type buffer struct {
	skb      uint64
	time     int64
	ex       *open
	serial   uint32 // of ex
	kind     capture.Kind
	response bool
	src, dst netip.AddrPort
}

func (b *buffers) slot(skb uint64) *buffer {
	return &b[skb*0x9e3779b97f4a7c15>>(64-bufferBits)] // Fibonacci hashing
}

func (b *buffers) note(p *capture.Packet, ex *open, response bool) {
	at := b.slot(p.SKB)
	at.skb, at.time, at.response, at.kind = p.SKB, p.Time, response, p.Kind
	at.serial = ex.serial
	if at.ex != ex {
		at.ex = ex
	}
	if at.src != p.Src || at.dst != p.Dst {
		at.src, at.dst = p.Src, p.Dst
	}
}

// in returns what was in the buffer of a packet just before; nil if that is unknown. A packet
// that reached a socket ends there: a device that sees its buffer later sees another packet.
func (b *buffers) in(p *capture.Packet) *buffer { return b.within(p, sameSKB) }

// justBefore is in, of what within returned.
func (b *buffer) justBefore(p *capture.Packet) *buffer {
	if b == nil || p.Time-b.time > sameSKB {
		return nil
	}
	return b
}

// question returns the question that is most likely that of a packet with the buffer.
func (b *buffer) question() []byte {
	if b == nil {
		return nil
	}
	return b.ex.question
}

// within is in, for a time of which the caller makes sure that it is the same message.
func (b *buffers) within(p *capture.Packet, d int64) *buffer {
	at := b.slot(p.SKB)
	if at.skb != p.SKB || p.SKB == 0 || p.Time-at.time > d || at.kind == capture.Delivered && (p.Kind == capture.RX || p.Kind == capture.TX) ||
		at.ex == nil || at.ex.closed || at.ex.serial != at.serial {
		return nil
	}
	return at
}

// sent tells whether a socket sends the packet here: it did not come from elsewhere.
// Of devices that are stacked, as bonds are, only the first that it passes counts; the
// lower one may be in another namespace, as that of a macvlan or ipvlan device is. The
// sender of an outer packet, as an overlay has, only carries the inner one.
func sent(p *capture.Packet, before *buffer) bool {
	if p.Outer != nil || p.PID == 0 && p.CgroupID == 0 || p.Kind != capture.TX && (p.Kind != capture.Drop || before != nil) {
		return false
	}
	// A segment may carry several messages: then it is before itself.
	return before == nil || before.kind != capture.TX || before.time == p.Time || before.src != p.Src || before.dst != p.Dst
}
