package lab

import (
	"errors"
	"fmt"
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
