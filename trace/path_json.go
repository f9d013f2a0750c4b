package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// pathMember is a sighting in JSON. A member that is left out has the value that it has
// in the sighting before; the tunnel and the VLAN are those of this one. A socket has no
// device: where it is in the namespace of the sighting before, the device is left out, and
// stays what it was for the sighting behind.
type pathMember struct {
	Offset    Seconds        `json:"offset_seconds"`
	Message   string         `json:"message"`
	Node      string         `json:"node"`
	NetNS     uint32         `json:"netns"`
	NetNSName string         `json:"netns_name"`
	IfIndex   uint32         `json:"ifindex"`
	IfName    string         `json:"ifname"`
	Direction string         `json:"direction"`
	Src       netip.AddrPort `json:"src"`
	Dst       netip.AddrPort `json:"dst"`
	Tunnel    *Tunnel        `json:"tunnel"`
	VLAN      uint16         `json:"vlan"`
}

// appendJSON appends the path of an exchange that a node saw.
func (p *Path) appendJSON(b []byte, node string) []byte {
	b = append(b, '[')
	written := Device{Node: node} // where the sighting before was
	device := -1                  // its number; -1: another
	before := &sighting{message: noNumber, direction: noNumber}
	for i := range p.sightings {
		if i > 0 {
			b = append(b, ',')
		}
		s := &p.sightings[i]
		b = s.offset.appendJSON(append(b, `{"offset_seconds":`...))
		if s.message != before.message {
			b = appendString(append(b, `,"message":`...), messages[s.message])
		}
		switch d := p.devices[s.device]; {
		case s.atSocket() && d.Place() == written.Place():
			if d.NetNSName != written.NetNSName {
				b = appendString(append(b, `,"netns_name":`...), d.NetNSName)
				written.NetNSName, device = d.NetNSName, -1
			}
		case device != int(s.device):
			b = d.appendJSON(b, &written)
			written, device = *d, int(s.device)
		}
		if s.direction != before.direction {
			b = appendString(append(b, `,"direction":`...), directions[s.direction])
		}
		if i == 0 || s.envelope != before.envelope {
			b = p.appendAddresses(b, i)
		}
		b = append(p.appendAround(b, s), '}')
		before = s
	}
	return append(b, ']')
}

// noNumber is that of no message and no direction.
const noNumber = 1<<8 - 1

func (s *sighting) atSocket() bool { return atSocket(directions[s.direction]) }

// atSocket tells whether a sighting with a direction is at a socket.
func atSocket(direction string) bool {
	return direction == DirectionDelivered || direction == DirectionRead
}

// appendAddresses appends those of the addresses of a sighting that the one before has not.
func (p *Path) appendAddresses(b []byte, i int) []byte {
	var src, dst netip.AddrPort
	if i > 0 {
		src, dst = p.Addresses(i - 1)
	}
	v := &p.envelopes[p.sightings[i].envelope]
	if addr := p.addresses[v.src]; addr != src {
		b = appendAddrPort(append(b, `,"src":`...), addr)
	}
	if addr := p.addresses[v.dst]; addr != dst {
		b = appendAddrPort(append(b, `,"dst":`...), addr)
	}
	return b
}

// appendAround appends what a packet had around it beside its addresses.
func (p *Path) appendAround(b []byte, s *sighting) []byte {
	v := &p.envelopes[s.envelope]
	if v.vlan != 0 {
		b = appendUint(append(b, `,"vlan":`...), v.vlan)
	}
	if v.tunnel > 0 {
		t := p.tunnels[v.tunnel-1]
		b = appendString(append(b, `,"tunnel":{"kind":`...), t.Kind)
		b = appendAddrPort(append(b, `,"src":`...), t.Src)
		b = appendAddrPort(append(b, `,"dst":`...), t.Dst)
		b = append(appendUint(append(b, `,"vni":`...), t.VNI), '}')
	}
	return b
}

func (d *Device) appendJSON(b []byte, before *Device) []byte {
	if d.Node != before.Node {
		b = appendString(append(b, `,"node":`...), d.Node)
	}
	if d.NetNS != before.NetNS {
		b = appendUint(append(b, `,"netns":`...), d.NetNS)
	}
	if d.NetNSName != before.NetNSName {
		b = appendString(append(b, `,"netns_name":`...), d.NetNSName)
	}
	if d.IfIndex != before.IfIndex {
		b = appendUint(append(b, `,"ifindex":`...), d.IfIndex)
	}
	if d.IfName != before.IfName {
		b = appendString(append(b, `,"ifname":`...), d.IfName)
	}
	return b
}

// MarshalJSONTo implements json.MarshalerTo.
func (p Path) MarshalJSONTo(enc *jsontext.Encoder) error {
	return enc.WriteValue(p.appendJSON(nil, ""))
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom. A sighting of the node that the
// exchange names has an empty node, which [Exchange] fills in.
func (p *Path) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*p = Path{}
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '[' {
		return cmp.Or(err, errors.New("expected a list"))
	}
	var m pathMember
	for dec.PeekKind() != ']' {
		// What is left out keeps the value of the sighting before.
		m.Tunnel, m.VLAN = nil, 0
		if err := json.UnmarshalDecode(dec, &m); err != nil {
			return err
		}
		switch {
		case !slices.Contains(messages[:], m.Message):
			return fmt.Errorf("sighting %d: message: expected query or response, got %q", p.Len(), m.Message)
		case !slices.Contains(directions[:], m.Direction):
			return fmt.Errorf("sighting %d: direction: expected tx, rx, delivered or read, got %q", p.Len(), m.Direction)
		case !p.Append(m.sighting()):
			return fmt.Errorf("sighting %d: too many devices or addresses in one path", p.Len())
		}
	}
	_, err := dec.ReadToken()
	return err
}

func (m *pathMember) sighting() Sighting {
	s := Sighting{
		Device: Device{m.Node, m.NetNS, m.NetNSName, m.IfIndex, m.IfName}, Offset: m.Offset,
		Message: m.Message, Direction: m.Direction, Src: m.Src, Dst: m.Dst, Tunnel: m.Tunnel, VLAN: m.VLAN,
	}
	if atSocket(s.Direction) {
		s.IfIndex, s.IfName = 0, ""
	}
	return s
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (e *Exchange) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Exchange
	if err := json.UnmarshalDecode(dec, (*plain)(e)); err != nil {
		return err
	}
	for i := range e.Path.devices {
		d := e.Path.devices[i]
		d.Node = cmp.Or(d.Node, e.Node)
	}
	return e.checkMilestones()
}
