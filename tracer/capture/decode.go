package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// eventSize is the size of an event's head (bpf/dnstrace.h).
const eventSize = int(unsafe.Sizeof(bpf.DnstraceEvent{}))

// enum event_part, in the order in which the parts follow the payload.
const (
	partProcess = 1 << iota
	partCgroup
	partNAT
	partDrop
	partOuter
	partFragment
	partICMP
	partThread // behind the process
	partSocket
	partListenFull // without bytes of its own
	partWaited     // behind the drop
)

// enum server_end.
const (
	serverSrc = 1 << iota
	serverDst
)

// decoder turns events into packets. It interns the names that most packets repeat.
type decoder struct {
	names   map[[16]int8]string
	recent  [64]named // of names, by device or process
	netns   *namespaces
	symbols *symbols
	reasons map[uint32]string
	nat     NAT // of the packet that is passed on
	servers *servers
}

type named struct {
	chars [16]int8
	name  string
}

// eventTime reads the first field of an event.
func eventTime(raw []byte) int64 {
	return int64(binary.NativeEndian.Uint64(raw))
}

// maxNames bounds the table of interned names: device names come and go with pods, so the
// table is cleared when it is full.
const maxNames = 4096

// decode fills p from one record of a ring. The payload refers to raw.
func (d *decoder) decode(p *Packet, raw []byte) error {
	if len(raw) < eventSize {
		return fmt.Errorf("event of %d bytes, expected at least %d: the program and its loader do not match", len(raw), eventSize)
	}
	var e bpf.DnstraceEvent
	copy(bytesOf(&e), raw)
	tail := raw[eventSize:]
	from, to := int(e.Skip), int(e.Skip)+int(e.Captured)
	if to > len(tail) {
		return fmt.Errorf("event claims %d bytes of payload behind %d, has %d", e.Captured, from, len(tail))
	}
	rest := tail[to:]
	if from > 0 { // the kernel put the packet behind them (bpf/paged.h)
		rest = tail[:from]
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
		IfName:     d.intern(e.Ifname, e.Ifindex),
		Payload:    tail[from:to],
		PayloadLen: int(e.PayloadLen),
		VLAN:       e.Vlan,
		InnerVLAN:  e.InnerVlan,
		SrcServer:  e.Servers&serverSrc != 0,
		DstServer:  e.Servers&serverDst != 0,
	}
	d.learn(p)
	return d.decodeParts(p, &e, rest)
}

// tunnels are the names of enum tunnel (bpf/dnstrace.h).
var tunnels = map[uint8]string{1: TunnelVXLAN, 2: TunnelGeneve, 3: TunnelIPIP, 4: TunnelGRE}

// learn remembers servers that the programs found behind a translation.
func (d *decoder) learn(p *Packet) {
	if d.servers == nil {
		return
	}
	if p.SrcServer {
		d.servers.saw(p.Src, p.Time)
	}
	if p.DstServer {
		d.servers.saw(p.Dst, p.Time)
	}
}

// rareParts are those that few events have.
const rareParts = partDrop | partWaited | partOuter | partFragment | partICMP

// decodeParts reads what an event has beside its payload.
func (d *decoder) decodeParts(p *Packet, e *bpf.DnstraceEvent, tail []byte) error {
	r := parts{tail: tail, present: e.Parts}
	var (
		who    bpf.DnstraceSender
		thread bpf.DnstraceThread
		nat    bpf.DnstraceNat
	)
	if next(&r, partProcess, &who) {
		p.PID, p.Comm = int(who.Tgid), d.intern(who.Comm, who.Tgid)
		p.TID, p.Thread = p.PID, p.Comm
	}
	if next(&r, partThread, &thread) {
		p.TID, p.Thread = int(thread.Tid), d.intern(thread.Comm, thread.Tid)
	}
	next(&r, partCgroup, &p.CgroupID)
	if next(&r, partNAT, &nat) {
		p.NAT = &d.nat
		*p.NAT = NAT{
			Original: tuple(e.IpVersion, nat.Orig.Src, nat.Orig.Dst, nat.Orig.Sport, nat.Orig.Dport),
			Reply:    tuple(e.IpVersion, nat.Reply.Src, nat.Reply.Dst, nat.Reply.Sport, nat.Reply.Dport),
		}
	}
	if e.Parts&rareParts != 0 {
		d.decodeRareParts(p, &r)
	}
	next(&r, partSocket, &p.Sock)
	p.ListenFull = e.Parts&partListenFull != 0
	return r.err
}

func (d *decoder) decodeRareParts(p *Packet, r *parts) {
	var (
		drop     bpf.DnstraceDrop
		waited   bpf.DnstraceWaited
		outer    bpf.DnstraceOuter
		fragment bpf.DnstraceFragment
		icmp     bpf.DnstraceIcmpError
	)
	if next(r, partDrop, &drop) {
		d.dropped(p, &drop)
	}
	if next(r, partWaited, &waited) && isUnresolved(p) {
		d.waited(p, &waited)
	}
	if next(r, partOuter, &outer) {
		p.Outer = &Outer{Kind: tunnels[outer.Kind], Src: addrPort(outer.Saddr, outer.Sport), Dst: addrPort(outer.Daddr, outer.Dport), VNI: outer.Vni}
	}
	if next(r, partFragment, &fragment) {
		p.Fragment = &Fragment{ID: fragment.Id, Offset: int(fragment.Offset), Length: int(fragment.Length), More: fragment.More != 0}
	}
	if next(r, partICMP, &icmp) {
		quotedByICMP(p, &icmp)
	}
}

// waited sets the time and the sender of a packet that the kernel dropped long after it was
// sent, in a timer.
func (d *decoder) waited(p *Packet, w *bpf.DnstraceWaited) {
	p.SentAt = int64(w.Time)
	if w.Who.Tgid == 0 || p.PID != 0 {
		return
	}
	p.PID, p.Comm = int(w.Who.Tgid), d.intern(w.Who.Comm, w.Who.Tgid)
	p.TID, p.Thread = p.PID, p.Comm
	if w.Thread.Tid != 0 {
		p.TID, p.Thread = int(w.Thread.Tid), d.intern(w.Thread.Comm, w.Thread.Tid)
	}
}

// quotedByICMP turns the packet that an ICMP error quotes, which is what the program
// parsed, into the error that was seen.
func quotedByICMP(p *Packet, c *bpf.DnstraceIcmpError) {
	p.ICMP = &ICMP{
		Type: c.Type, Code: c.Code, MTU: c.Mtu,
		Protocol: p.Protocol, Src: p.Src, Dst: p.Dst, TCPSeq: p.TCPSeq, Payload: p.Payload,
	}
	if p.Protocol != trace.TransportUDP {
		p.ICMP.Payload = nil
	}
	p.Src, p.Dst = addrPort(c.Saddr, 0), addrPort(c.Daddr, 0)
	p.Protocol = ProtocolICMP
	if p.Src.Addr().Is6() {
		p.Protocol = ProtocolICMPv6
	}
	p.TCPSeq, p.Payload, p.PayloadLen = 0, nil, 0
}

// parts is what of an event is still to be read.
type parts struct {
	tail    []byte
	present uint16
	err     error
}

var errTruncated = errors.New("event is cut: the program and its loader do not match")

// layout is the types of which events are made: C's, without pointers.
type layout interface {
	bpf.DnstraceEvent | bpf.DnstraceSender | bpf.DnstraceThread | bpf.DnstraceNat | bpf.DnstraceDrop | bpf.DnstraceWaited | bpf.DnstraceOuter |
		bpf.DnstraceFragment | bpf.DnstraceIcmpError | bpf.DnstraceCounters | bpf.DnstraceServerKey | uint64
}

// next fills v with the next part, if it is there.
func next[T layout](r *parts, part uint16, v *T) bool {
	if r.present&part == 0 || r.err != nil {
		return false
	}
	n := copy(bytesOf(v), r.tail)
	if n < int(unsafe.Sizeof(*v)) {
		r.err = errTruncated
		return false
	}
	r.tail = r.tail[n:]
	return true
}

// bytesOf returns the memory of v.
func bytesOf[T layout](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// intern returns the name of a device or a process as an interned string; number, that of
// the device or process, speeds up the search.
func (d *decoder) intern(chars [16]int8, number uint32) string {
	at := &d.recent[number%uint32(len(d.recent))]
	if at.chars != chars {
		*at = named{chars, d.string(chars)}
	}
	return at.name
}

func (d *decoder) string(chars [16]int8) string {
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
