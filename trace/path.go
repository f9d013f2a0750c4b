package trace

import (
	"iter"
	"net/netip"
	"slices"
	"unsafe"
)

// Device is where a packet was seen: a device of a network namespace, or a socket
// there, which has no device. A namespace is known by node and inode together: nodes
// give the same numbers.
type Device struct {
	Node      string // whose tracer saw it; empty: its name is unknown
	NetNS     uint32 // inode of the network namespace
	NetNSName string // its name under /run/netns, if it has one
	IfIndex   uint32 // 0: a socket, or a device that is not known
	IfName    string
}

// Place is a network namespace of a node.
type Place struct {
	Node  string
	NetNS uint32
}

// Place returns the namespace that the device is in.
func (d *Device) Place() Place { return Place{d.Node, d.NetNS} }

// Sighting is one packet of an exchange, seen at one device or socket.
type Sighting struct {
	Device
	Offset    Seconds
	Message   string // query, response
	Direction string // rx, tx, delivered, read
	Src, Dst  netip.AddrPort
	Tunnel    *Tunnel // around the packet at this place
	VLAN      uint16  // id of the outermost tag (IEEE 802.1Q); 0: none
}

// Envelope is what a packet had around its message when it was seen.
type Envelope struct {
	Src, Dst netip.AddrPort
	Tunnel   *Tunnel // as in Sighting
	VLAN     uint16  // as in Sighting
}

// envelope is an Envelope with numbers in place of addresses, of which a path has few.
type envelope struct {
	src, dst uint16
	vlan     uint16
	tunnel   uint16 // 0: none; else its number and one
}

// sighting is a Sighting with numbers in place of what several have in common.
type sighting struct {
	offset           Seconds
	device, envelope uint16
	message          uint8
	direction        uint8
}

var (
	messages   = [...]string{MessageQuery, MessageResponse}
	directions = [...]string{DirectionTX, DirectionRX, DirectionDelivered, DirectionRead}
)

// Path is where the packets of an exchange were seen, in order of time. A sighting
// takes 16 bytes; devices and addresses are kept once each, and a device that many paths
// have can be one in memory. The zero value is empty. It is not safe for
// concurrent use.
type Path struct {
	sightings []sighting
	devices   []*Device
	envelopes []envelope
	addresses []netip.AddrPort
	tunnels   []*Tunnel
}

// PathOf returns the path of some sightings, in their order.
func PathOf(sightings ...Sighting) Path {
	var p Path
	for _, s := range sightings {
		p.Append(s)
	}
	return p
}

// MakePath returns an empty path with room for so many sightings, devices, and addresses.
func MakePath(sightings, devices, addresses int) Path {
	return Path{sightings: make([]sighting, 0, sightings), devices: make([]*Device, 0, devices), envelopes: make([]envelope, 0, addresses),
		addresses: make([]netip.AddrPort, 0, addresses)}
}

// Len returns the number of sightings.
func (p *Path) Len() int { return len(p.sightings) }

// At returns a sighting; i is from 0 to Len()-1.
func (p *Path) At(i int) Sighting {
	s := &p.sightings[i]
	v := p.around(s)
	return Sighting{
		Device: *p.devices[s.device], Offset: s.offset, Message: messages[s.message], Direction: directions[s.direction],
		Src: v.Src, Dst: v.Dst, Tunnel: v.Tunnel, VLAN: v.VLAN,
	}
}

// Offset returns how long after the first packet a sighting was; i is as in At, of which
// it and the next three are a cheap part.
func (p *Path) Offset(i int) Seconds { return p.sightings[i].offset }

// Place returns where a sighting was.
func (p *Path) Place(i int) Place { return p.devices[p.sightings[i].device].Place() }

// Device returns the device of a sighting, which the path keeps.
func (p *Path) Device(i int) *Device { return p.devices[p.sightings[i].device] }

// Addresses returns the source and the destination of a sighting's packet.
func (p *Path) Addresses(i int) (src, dst netip.AddrPort) {
	v := &p.envelopes[p.sightings[i].envelope]
	return p.addresses[v.src], p.addresses[v.dst]
}

// Last returns the index of the last sighting of a message up to some time after the first
// packet; -1 if there is none.
func (p *Path) Last(message string, until Seconds) int {
	for i := len(p.sightings) - 1; i >= 0; i-- {
		if s := &p.sightings[i]; messages[s.message] == message && s.offset <= until {
			return i
		}
	}
	return -1
}

// All ranges over the sightings in order.
func (p *Path) All() iter.Seq2[int, Sighting] {
	return func(yield func(int, Sighting) bool) {
		for i := range p.sightings {
			if !yield(i, p.At(i)) {
				return
			}
		}
	}
}

// maxPathNumber bounds the devices and the addresses of a path, which are numbered
// in 16 bits.
const maxPathNumber = 1 << 16

// Append adds a sighting at the end; false if there are too many devices or
// addresses. The path keeps s.Tunnel, which must not change.
func (p *Path) Append(s Sighting) bool {
	var d *Device
	if i := slices.IndexFunc(p.devices, func(d *Device) bool { return *d == s.Device }); i >= 0 {
		d = p.devices[i]
	} else {
		d = &Device{s.Node, s.NetNS, s.NetNSName, s.IfIndex, s.IfName}
	}
	return p.AppendAt(d, s.Offset, s.Message, s.Direction, &Envelope{s.Src, s.Dst, s.Tunnel, s.VLAN})
}

// AppendAt adds what Append does, at a device that the path keeps and that must not change.
func (p *Path) AppendAt(d *Device, offset Seconds, message, direction string, around *Envelope) bool {
	device, ok := number(&p.devices, d)
	envelope, fits := p.envelopeOf(around)
	if !ok || !fits {
		return false
	}
	p.sightings = append(p.sightings, sighting{
		offset: offset, device: device, envelope: envelope,
		message: uint8(max(0, slices.Index(messages[:], message))), direction: uint8(max(0, slices.Index(directions[:], direction))),
	})
	return true
}

// number returns the number of an item in a list, to which it is added if need be; false
// where there are too many.
func number[T comparable](list *[]T, item T) (n uint16, ok bool) {
	i := len(*list) - 1
	for i >= 0 && (*list)[i] != item { // most are at the end
		i--
	}
	switch {
	case i >= 0:
	case len(*list) == maxPathNumber:
		return 0, false
	default:
		i = len(*list)
		*list = append(*list, item)
	}
	return uint16(i), true
}

// envelopeOf is number for an envelope.
func (p *Path) envelopeOf(around *Envelope) (n uint16, ok bool) {
	src, ok := number(&p.addresses, around.Src)
	dst, fits := number(&p.addresses, around.Dst)
	tunnel, known := p.tunnelOf(around.Tunnel)
	if !ok || !fits || !known {
		return 0, false
	}
	return number(&p.envelopes, envelope{src, dst, around.VLAN, tunnel})
}

// tunnelOf returns the number of a tunnel, and one; 0 for none.
func (p *Path) tunnelOf(t *Tunnel) (n uint16, ok bool) {
	if t == nil {
		return 0, true
	}
	i := slices.IndexFunc(p.tunnels, t.equal)
	if i < 0 {
		i = len(p.tunnels)
		p.tunnels = append(p.tunnels, t)
	}
	return uint16(i + 1), i+1 < maxPathNumber
}

// around returns what a packet had around its message.
func (p *Path) around(s *sighting) Envelope {
	v := &p.envelopes[s.envelope]
	e := Envelope{Src: p.addresses[v.src], Dst: p.addresses[v.dst], VLAN: v.vlan}
	if v.tunnel > 0 {
		e.Tunnel = p.tunnels[v.tunnel-1]
	}
	return e
}

// CopyTo adds a sighting of p to another path; false as in Append.
func (p *Path) CopyTo(other *Path, i int) bool {
	s := &p.sightings[i]
	around := p.around(s)
	return other.AppendAt(p.devices[s.device], s.offset, messages[s.message], directions[s.direction], &around)
}

// Clone returns a copy that shares nothing that changes with p.
func (p *Path) Clone() Path {
	return Path{slices.Clone(p.sightings), slices.Clone(p.devices), slices.Clone(p.envelopes), slices.Clone(p.addresses), slices.Clone(p.tunnels)}
}

// PathMemory is room for what most exchanges have of a path: they go through some bridges
// and a translation, and are seen at two sockets.
type PathMemory struct {
	sightings [14]sighting
	devices   [7]*Device
	envelopes [4]envelope
	addresses [3]netip.AddrPort
}

// CloneIn is Clone, in memory of the caller as far as that has room. It is empty.
func (p *Path) CloneIn(m *PathMemory) Path {
	return Path{append(m.sightings[:0], p.sightings...), append(m.devices[:0], p.devices...), append(m.envelopes[:0], p.envelopes...),
		append(m.addresses[:0], p.addresses...), slices.Clone(p.tunnels)}
}

// Reset empties the path and keeps its memory.
func (p *Path) Reset() {
	clear(p.devices)
	clear(p.addresses)
	clear(p.tunnels)
	*p = Path{p.sightings[:0], p.devices[:0], p.envelopes[:0], p.addresses[:0], p.tunnels[:0]}
}

// Size returns the bytes that the path takes beside its own header, and its devices.
func (p *Path) Size() int {
	const pointer = int(unsafe.Sizeof((*Device)(nil)))
	return cap(p.sightings)*int(unsafe.Sizeof(sighting{})) + cap(p.devices)*pointer + cap(p.envelopes)*int(unsafe.Sizeof(envelope{})) +
		cap(p.addresses)*int(unsafe.Sizeof(netip.AddrPort{})) + cap(p.tunnels)*(pointer+int(unsafe.Sizeof(Tunnel{})))
}
