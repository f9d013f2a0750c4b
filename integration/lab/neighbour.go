package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ForgetNeighbour makes the node forget the link address of an address on its
// bridge, as it does by itself some time after a pod has gone.
func (l *Lab) ForgetNeighbour(addr netip.Addr) error {
	node := l.Host(Node)
	bridge, err := node.ns.links.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	err = node.ns.links.NeighDel(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, IP: addr.AsSlice()})
	// It may have gone with the pod's device.
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget neighbour %s: %w", addr, err)
	}
	return nil
}

// WrongNeighbour makes a host believe that an address has a link address that nobody has,
// until undone.
func (l *Lab) WrongNeighbour(host, device string, addr netip.Addr) (undo func(), err error) {
	h := l.Host(host)
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return nil, err
	}
	wrong := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: addr.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0x99},
	}
	if err := h.ns.links.NeighSet(wrong); err != nil {
		return nil, fmt.Errorf("link address of %s in %s: %w", addr, host, err)
	}
	return l.undoOnce(func() error { return h.ns.links.NeighDel(wrong) }), nil
}
