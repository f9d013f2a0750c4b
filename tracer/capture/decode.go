package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/dnstrace/dnstrace/bpf"
)

// ipsNAT are the bits of enum ip_conntrack_status that say that an address is
// translated: IPS_SRC_NAT and IPS_DST_NAT.
const ipsNAT = 1<<4 | 1<<5

const eventSize = int(unsafe.Sizeof(bpf.DnstraceEvent{}))

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
	e := (*bpf.DnstraceEvent)(unsafe.Pointer(unsafe.SliceData(raw)))
	captured := int(e.Captured)
	if captured > len(raw)-eventSize {
		return fmt.Errorf("event claims %d bytes of payload, has %d", captured, len(raw)-eventSize)
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
		Payload:    raw[eventSize : eventSize+captured],
		PayloadLen: int(e.PayloadLen),
		PID:        int(e.Tgid),
	}
	if e.Tgid != 0 {
		p.Comm = d.intern(e.Comm)
	}
	if e.CtStatus&ipsNAT != 0 {
		p.NAT = &NAT{
			Original: tuple(e.IpVersion, e.Orig.Src, e.Orig.Dst, e.Orig.Sport, e.Orig.Dport),
			Reply:    tuple(e.IpVersion, e.Reply.Src, e.Reply.Dst, e.Reply.Sport, e.Reply.Dport),
		}
	}
	if p.Kind == Drop {
		p.Where = d.symbols.name(e.Location)
		p.Reason = d.reasons[e.Reason]
	}
	return nil
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
