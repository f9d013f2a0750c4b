package filter

import (
	"net/netip"
	"reflect"

	"github.com/dnstrace/dnstrace/trace"
)

// sighting is one of a path with the fields of its JSON, none left out.
type sighting struct {
	Offset    trace.Seconds  `json:"offset_seconds"`
	Message   string         `json:"message"`
	Node      string         `json:"node"`
	NetNS     uint32         `json:"netns"`
	NetNSName string         `json:"netns_name"`
	IfIndex   uint32         `json:"ifindex"`
	IfName    string         `json:"ifname"`
	Direction string         `json:"direction"`
	Src       netip.AddrPort `json:"src"`
	Dst       netip.AddrPort `json:"dst"`
	Tunnel    *trace.Tunnel  `json:"tunnel"`
	VLAN      uint16         `json:"vlan"`
}

// pathValue returns a path as the list that an expression sees.
func pathValue(p *trace.Path, b *budget) any {
	if b.spend(p.Len()) != nil {
		return nil
	}
	list := make([]any, 0, p.Len())
	for _, s := range p.All() {
		list = append(list, value(reflect.ValueOf(sighting{
			Offset: s.Offset, Message: s.Message, Node: s.Node, NetNS: s.NetNS, NetNSName: s.NetNSName, IfIndex: s.IfIndex,
			IfName: s.IfName, Direction: s.Direction, Src: s.Src, Dst: s.Dst, Tunnel: s.Tunnel, VLAN: s.VLAN,
		}), b))
	}
	return list
}

// milestoneValue returns a milestone as JSON shows it: the index of a sighting, the
// word for what is not observable, or nil.
func milestoneValue(m trace.Milestone) any {
	switch {
	case m.Seen():
		return m.Index()
	case m == trace.NotObservable:
		return "not_observable"
	}
	return nil
}
