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

// envelope is what a packet had around its message when it was seen.
type envelope struct {
	src, dst netip.AddrPort
	tunnel   *Tunnel
	vlan     uint16
}

func (v *envelope) equal(w *envelope) bool {
	return v.src == w.src && v.dst == w.dst && v.vlan == w.vlan && v.tunnel.equal(w.tunnel)
}

// sighting is a Sighting with numbers in place of what several have in common.
type sighting struct {
	offset           int64 // ns
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
	return Path{make([]sighting, 0, sightings), make([]*Device, 0, devices), make([]envelope, 0, addresses)}
}

// Len returns the number of sightings.
func (p *Path) Len() int { return len(p.sightings) }

// At returns a sighting; i is from 0 to Len()-1.
func (p *Path) At(i int) Sighting {
	s := &p.sightings[i]
	v := &p.envelopes[s.envelope]
	return Sighting{
		Device: *p.devices[s.device], Offset: Seconds(s.offset), Message: messages[s.message], Direction: directions[s.direction],
		Src: v.src, Dst: v.dst, Tunnel: v.tunnel, VLAN: v.vlan,
	}
}

// Offset returns how long after the first packet a sighting was; i is as in At, of which
// it and the next three are a cheap part.
func (p *Path) Offset(i int) Seconds { return Seconds(p.sightings[i].offset) }

// Place returns where a sighting was.
func (p *Path) Place(i int) Place { return p.devices[p.sightings[i].device].Place() }

// Device returns the device of a sighting, which the path keeps.
func (p *Path) Device(i int) *Device { return p.devices[p.sightings[i].device] }

// Addresses returns the source and the destination of a sighting's packet.
func (p *Path) Addresses(i int) (src, dst netip.AddrPort) {
	v := &p.envelopes[p.sightings[i].envelope]
	return v.src, v.dst
}

// Last returns the index of the last sighting of a message up to some time after the first
// packet; -1 if there is none.
func (p *Path) Last(message string, until Seconds) int {
	for i := len(p.sightings) - 1; i >= 0; i-- {
		if s := &p.sightings[i]; messages[s.message] == message && Seconds(s.offset) <= until {
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
	device := slices.IndexFunc(p.devices, func(d *Device) bool { return *d == s.Device })
	if device >= 0 {
		return p.AppendAt(p.devices[device], &s)
	}
	d := s.Device
	return p.AppendAt(&d, &s)
}

// AppendAt adds a sighting at a device, which the path keeps and which must not change, in
// place of the one that s names; it is another than those of the path, or one of them.
func (p *Path) AppendAt(d *Device, s *Sighting) bool {
	device := slices.Index(p.devices, d)
	v := envelope{s.Src, s.Dst, s.Tunnel, s.VLAN}
	around := slices.IndexFunc(p.envelopes, func(w envelope) bool { return w.equal(&v) })
	if device < 0 && len(p.devices) == maxPathNumber || around < 0 && len(p.envelopes) == maxPathNumber {
		return false
	}
	if device < 0 {
		device = len(p.devices)
		p.devices = append(p.devices, d)
	}
	if around < 0 {
		around = len(p.envelopes)
		p.envelopes = append(p.envelopes, v)
	}
	compact := sighting{offset: int64(s.Offset), device: uint16(device), envelope: uint16(around)}
	compact.message = uint8(max(0, slices.Index(messages[:], s.Message)))
	compact.direction = uint8(max(0, slices.Index(directions[:], s.Direction)))
	p.sightings = append(p.sightings, compact)
	return true
}

// Clone returns a copy that shares nothing that changes with p.
func (p *Path) Clone() Path {
	return Path{slices.Clone(p.sightings), slices.Clone(p.devices), slices.Clone(p.envelopes)}
}

// Reset empties the path and keeps its memory.
func (p *Path) Reset() {
	clear(p.devices)
	clear(p.envelopes)
	*p = Path{p.sightings[:0], p.devices[:0], p.envelopes[:0]}
}

// Size returns the bytes that the path takes beside its own header, and its devices.
func (p *Path) Size() int {
	return cap(p.sightings)*int(unsafe.Sizeof(sighting{})) + cap(p.devices)*int(unsafe.Sizeof((*Device)(nil))) +
		cap(p.envelopes)*int(unsafe.Sizeof(envelope{}))
}
