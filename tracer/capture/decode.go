package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/dnstrace/dnstrace/bpf"
)

// Sizes of an event's head and parts (bpf/dnstrace.h).
const (
	eventSize  = int(unsafe.Sizeof(bpf.DnstraceEvent{}))
	senderSize = int(unsafe.Sizeof(bpf.DnstraceSender{}))
	natSize    = int(unsafe.Sizeof(bpf.DnstraceNat{}))
	dropSize   = int(unsafe.Sizeof(bpf.DnstraceDrop{}))
)

// enum event_part.
const (
	partProcess = 1
	partNAT     = 2
	partDrop    = 4
)

// decoder turns events into packets. Names that come again with every packet
// are made into strings once.
type decoder struct {
	names   map[[16]int8]string
	netns   *namespaces
	symbols *symbols
	reasons map[uint32]string
}

// eventTime reads the first field of an event.
func eventTime(raw []byte) int64 {
	return int64(binary.NativeEndian.Uint64(raw))
}

// maxNames bounds the table of interned names: device names come and go with
// pods, so the table is begun anew when it is full.
const maxNames = 4096

// decode fills p from one record of a ring. The payload refers to raw.
func (d *decoder) decode(p *Packet, raw []byte) error {
	if len(raw) < eventSize {
		return fmt.Errorf("event of %d bytes, expected at least %d: the program and its loader do not match", len(raw), eventSize)
	}
	var e bpf.DnstraceEvent
	copy(bytesOf(&e), raw)
	tail := raw[eventSize:]
	if int(e.Captured) > len(tail) {
		return fmt.Errorf("event claims %d bytes of payload, has %d", e.Captured, len(tail))
	}
	*p = Packet{
		Time:       int64(e.Time),
		SKB:        e.Skb,
		Kind:       Kind(e.Kind),
		Protocol:   e.Protocol,
		TCPFlags:   e.TcpFlags,
		TCPSeq:     e.Seq,
		Src:        addrPort(e.Saddr, e.Sport),
		Dst:        addrPort(e.Daddr, e.Dport),
		NetNS:      e.Netns,
		NetNSName:  d.netns.name(e.Netns),
		IfIndex:    e.Ifindex,
		IfName:     d.intern(e.Ifname),
		Payload:    tail[:e.Captured],
		PayloadLen: int(e.PayloadLen),
	}
	return d.decodeParts(p, &e, tail[e.Captured:])
}

// decodeParts reads what follows the payload.
func (d *decoder) decodeParts(p *Packet, e *bpf.DnstraceEvent, parts []byte) error {
	if e.Parts&partProcess != 0 {
		var s bpf.DnstraceSender
		n := copy(bytesOf(&s), parts)
		if n < senderSize {
			return errCut
		}
		p.PID, p.Comm = int(s.Tgid), d.intern(s.Comm)
		parts = parts[n:]
	}
	if e.Parts&partNAT != 0 {
		var t bpf.DnstraceNat
		n := copy(bytesOf(&t), parts)
		if n < natSize {
			return errCut
		}
		p.NAT = &NAT{
			Original: tuple(e.IpVersion, t.Orig.Src, t.Orig.Dst, t.Orig.Sport, t.Orig.Dport),
			Reply:    tuple(e.IpVersion, t.Reply.Src, t.Reply.Dst, t.Reply.Sport, t.Reply.Dport),
		}
		parts = parts[n:]
	}
	if e.Parts&partDrop != 0 {
		var drop bpf.DnstraceDrop
		if copy(bytesOf(&drop), parts) < dropSize {
			return errCut
		}
		p.Where = d.symbols.name(drop.Location)
		p.Reason = d.reasons[drop.Reason]
	}
	return nil
}

var errCut = errors.New("event is cut: the program and its loader do not match")

// bytesOf returns the memory of v, which has no pointers: the layout is C's.
func bytesOf[T bpf.DnstraceEvent | bpf.DnstraceSender | bpf.DnstraceNat | bpf.DnstraceDrop](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

func (d *decoder) intern(chars [16]int8) string {
	if s, ok := d.names[chars]; ok {
		return s
	}
	b := make([]byte, 0, len(chars))
	for _, c := range chars {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	if len(d.names) >= maxNames {
		clear(d.names)
	}
	s := string(b)
	d.names[chars] = s
	return s
}

func addrPort(addr [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), port)
}

// tuple reads the addresses of connection tracking, which keeps an IPv4 address
// in the first four bytes of a union nf_inet_addr.
func tuple(version uint8, src, dst [16]byte, sport, dport uint16) Tuple {
	if version == 4 {
		return Tuple{
			Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte(src[:4])), sport),
			Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte(dst[:4])), dport),
		}
	}
	return Tuple{
		Src: netip.AddrPortFrom(netip.AddrFrom16(src), sport),
		Dst: netip.AddrPortFrom(netip.AddrFrom16(dst), dport),
	}
}
