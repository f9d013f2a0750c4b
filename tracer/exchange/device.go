package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// maxDevices is how many devices are kept once for all paths: a node has some hundred. Where
// there are more, as devices come and go, all begin anew.
const maxDevices = 4096

// devices keeps each device once, for all paths that have it.
type devices map[deviceKey]*trace.Device

// deviceKey is what the kernel knows a device by.
type deviceKey struct{ netns, ifindex uint32 }

// of returns the device, or the socket's namespace, at which a packet was seen.
func (known devices) of(p *capture.Packet, node string) *trace.Device {
	k := deviceKey{p.NetNS, p.IfIndex}
	d := known[k]
	if d != nil && d.IfName == p.IfName && d.NetNSName == p.NetNSName {
		return d
	}
	if len(known) >= maxDevices {
		clear(known)
	}
	d = &trace.Device{Node: node, NetNS: p.NetNS, NetNSName: p.NetNSName, IfIndex: p.IfIndex, IfName: p.IfName}
	known[k] = d
	return d
}
