package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// maxDevices bounds the interned devices: a node has some hundred. Beyond it, as devices
// come and go, the table is cleared.
const maxDevices = 4096

// devices keeps each device once, for all paths that have it.
type devices struct {
	all    map[deviceKey]*trace.Device
	recent [64]*trace.Device // some of them, where to look first
}

// deviceKey is what the kernel knows a device by.
type deviceKey struct{ netns, ifindex uint32 }

// of returns the device, or the socket's namespace, at which a packet was seen.
func (known *devices) of(p *capture.Packet, node string) *trace.Device {
	at := &known.recent[(p.NetNS*31+p.IfIndex)%uint32(len(known.recent))]
	if isAt(p, *at) {
		return *at
	}
	k := deviceKey{p.NetNS, p.IfIndex}
	d := known.all[k]
	if !isAt(p, d) {
		if known.all == nil || len(known.all) >= maxDevices {
			known.all = map[deviceKey]*trace.Device{}
		}
		d = &trace.Device{Node: node, NetNS: p.NetNS, NetNSName: p.NetNSName, IfIndex: p.IfIndex, IfName: p.IfName}
		known.all[k] = d
	}
	*at = d
	return d
}

// isAt tells whether a packet was seen at a device.
func isAt(p *capture.Packet, d *trace.Device) bool {
	return d != nil && d.IfIndex == p.IfIndex && d.NetNS == p.NetNS && d.IfName == p.IfName && d.NetNSName == p.NetNSName
}
