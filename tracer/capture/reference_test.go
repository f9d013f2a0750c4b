package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// reference reads a frame as the eBPF programs are meant to: from the RFCs and in
// another language, so that one mistake is not made twice. It knows nothing of other
// frames: of a later fragment it says no more than that it is one.
type reference struct {
	frame    []byte // from the Ethernet header on
	at, left int    // the cursor, and what the innermost IP header says follows it
	version  int    // of the innermost IP header
	next     byte   // protocol of what follows
	src, dst netip.Addr
	fragment bool // a first one
	// What a program reports.
	seen, later       bool
	protocol          byte
	sport, dport      uint16
	tunnel, icmpError bool
	payload           []byte
}

// Bounds of the programs: what they copy of a payload, and how many headers they read.
const (
	longestPayload = 2048
	mostHeaders    = 12
)

// step reads a header and returns what reads the next one, nil at the end.
type step func(*reference) step

func refer(frame []byte) *reference {
	r := &reference{frame: frame, at: 14}
	read := ethertypes[binary.BigEndian.Uint16(frame[12:])]
	for n := 0; read != nil && n < mostHeaders; n++ {
		read = read(r)
	}
	if r.seen && !r.later {
		end := min(len(frame), r.at+min(r.left, longestPayload))
		r.payload = frame[min(r.at, end):end]
	}
	return r
}

var ethertypes, protocols map[uint16]step

func init() {
	ethertypes = map[uint16]step{0x0800: (*reference).ipv4, 0x86dd: (*reference).ipv6, 0x8100: (*reference).vlan, 0x88a8: (*reference).vlan}
	protocols = map[uint16]step{17: (*reference).udp, 6: (*reference).tcp, 1: (*reference).icmp, 58: (*reference).icmp,
		4: (*reference).inIPv4, 41: (*reference).inIPv6, 47: (*reference).gre,
		0: (*reference).options, 43: (*reference).options, 60: (*reference).options, 44: (*reference).fragment6}
}

// take returns the next n bytes and goes on behind them, or nil if there are fewer.
func (r *reference) take(n int) []byte {
	b := r.look(n)
	r.at, r.left = r.at+n, r.left-n
	return b
}

func (r *reference) look(n int) []byte {
	if len(r.frame)-r.at < n {
		return nil
	}
	return r.frame[r.at : r.at+n]
}

func (r *reference) vlan() step {
	h := r.take(4)
	if h == nil {
		return nil
	}
	return ethertypes[binary.BigEndian.Uint16(h[2:])]
}

func (r *reference) ipv4() step {
	h := r.look(20)
	if h == nil {
		return nil
	}
	words, total, fragment := int(h[0]&15), int(binary.BigEndian.Uint16(h[2:])), binary.BigEndian.Uint16(h[6:])
	if h[0]>>4 != 4 || words < 5 || total < 4*words {
		return nil
	}
	r.version, r.next, r.left = 4, h[9], total
	r.src, r.dst = netip.AddrFrom4([4]byte(h[12:])), netip.AddrFrom4([4]byte(h[16:]))
	r.take(4 * words)
	return r.fragmented(int(fragment&0x1fff), fragment&0x2000 != 0)
}

func (r *reference) ipv6() step {
	h := r.take(40)
	if h == nil || h[0]>>4 != 6 {
		return nil
	}
	r.version, r.next, r.left = 6, h[6], int(binary.BigEndian.Uint16(h[4:]))
	r.src, r.dst = netip.AddrFrom16([16]byte(h[8:])), netip.AddrFrom16([16]byte(h[24:]))
	return protocols[uint16(r.next)]
}

// fragmented goes on behind a header that tells of fragments.
func (r *reference) fragmented(offset int, more bool) step {
	if offset != 0 {
		r.later = !r.icmpError
		return nil
	}
	r.fragment = r.fragment || more
	return protocols[uint16(r.next)]
}

func (r *reference) fragment6() step {
	h := r.look(8)
	if r.version != 6 || h == nil || r.left < 8 {
		return nil
	}
	r.next = h[0]
	r.take(8)
	place := binary.BigEndian.Uint16(h[2:])
	return r.fragmented(int(place>>3), place&1 != 0)
}

func (r *reference) options() step {
	h := r.look(8)
	if r.version != 6 || h == nil || r.left < 8*int(h[1])+8 {
		return nil
	}
	r.next = h[0]
	r.take(8*int(h[1]) + 8)
	return protocols[uint16(r.next)]
}

// ports reads what UDP and TCP have in common, and tells whether they are of DNS.
func (r *reference) ports() (dns, ok bool) {
	h := r.look(8)
	if h == nil {
		return false, false
	}
	r.protocol, r.sport, r.dport = r.next, binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	return r.sport == dport || r.dport == dport, true
}

func (r *reference) udp() step {
	dns, ok := r.ports()
	if !ok || r.left < 8 {
		return nil
	}
	r.take(8)
	r.seen = dns && (r.left >= headerBytes || r.sport == dport && !r.icmpError)
	if dns || !slices.Contains([]uint16{4789, 8472, 6081}, r.dport) || !r.mayBeTunnel() {
		return nil
	}
	return (*reference).tunnelled
}

func (r *reference) mayBeTunnel() bool { return !r.tunnel && !r.icmpError && !r.fragment }

func (r *reference) inIPv4() step { return r.in(0x0800) }
func (r *reference) inIPv6() step { return r.in(0x86dd) }

// in goes on with the packet of a tunnel, which the tunnel says is of this type.
func (r *reference) in(ethertype uint16) step {
	if !r.mayBeTunnel() {
		return nil
	}
	r.tunnel = true
	if ethertype != 0x6558 {
		return ethertypes[ethertype]
	}
	if r.look(16) == nil {
		return nil
	}
	return ethertypes[binary.BigEndian.Uint16(r.take(14)[12:])]
}

// gre reads RFC 2784 and RFC 2890: four bytes, and four more for each of checksum, key
// and sequence number.
func (r *reference) gre() step {
	h := r.take(4)
	if h == nil || h[0]&0x40 != 0 || h[1]&7 != 0 {
		return nil
	}
	for _, flag := range []byte{0x80, 0x20, 0x10} {
		if h[0]&flag == 0 {
			continue
		}
		if flag == 0x20 && r.look(4) == nil {
			return nil
		}
		r.at += 4
	}
	return r.in(binary.BigEndian.Uint16(h[2:]))
}

func (r *reference) tunnelled() step {
	h, geneve := r.look(8), r.dport == 6081
	if h == nil || !geneve && h[0]&8 == 0 {
		return nil
	}
	r.at += 8
	if !geneve {
		return r.in(0x6558)
	}
	r.at += 4 * int(h[0]&63)
	return r.in(binary.BigEndian.Uint16(h[2:]))
}

func (r *reference) tcp() step {
	dns, ok := r.ports()
	h := r.look(20)
	switch {
	case !ok || !dns:
	case r.icmpError:
		r.seen, r.left = true, 0
	case h == nil || h[12]>>4 < 5 || r.left < 4*int(h[12]>>4):
	default:
		r.take(4 * int(h[12]>>4))
		r.seen = r.left > 0 || h[13]&(FlagSYN|FlagFIN|FlagRST) != 0
	}
	return nil
}

func (r *reference) icmp() step {
	h := r.take(8)
	if h == nil || r.icmpError || r.fragment || (r.next == 1) != (r.version == 4) {
		return nil
	}
	if r.version == 4 && h[0] != 3 && h[0] != 11 && h[0] != 12 || r.version == 6 && (h[0] < 1 || h[0] > 4) {
		return nil
	}
	r.icmpError = true
	if r.version == 4 {
		return (*reference).ipv4
	}
	return (*reference).ipv6
}

// agrees tells what a packet that was reported says otherwise, or nothing.
func (r *reference) agrees(p *Packet) string {
	src, dst, payload, protocol := p.Src, p.Dst, p.Payload, p.Protocol
	if p.ICMP != nil {
		src, dst, payload, protocol = p.ICMP.Src, p.ICMP.Dst, p.ICMP.Payload, p.ICMP.Protocol
	}
	switch {
	case (p.ICMP != nil) != r.icmpError:
		return "whether it is an error of ICMP"
	case (p.Outer != nil) != r.tunnel:
		return "whether it is in a tunnel"
	case protocol != r.protocol:
		return "protocol"
	case src.Addr() != r.src.Unmap() || dst.Addr() != r.dst.Unmap():
		return "addresses"
	case src.Port() != r.sport || dst.Port() != r.dport:
		return "ports"
	case string(payload) != string(r.payload):
		return "payload"
	case protocol != trace.TransportTCP && protocol != trace.TransportUDP:
		return "neither UDP nor TCP"
	}
	return ""
}
