package lab

import "fmt"

// SmallerMTU lets a device of a host pass no packets above a size, until undone: as a
// tunnel on the way does, whose two ends have no other room.
func (l *Lab) SmallerMTU(host, device string, mtu int) (undo func(), err error) {
	h := l.Host(host)
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return nil, err
	}
	if err := h.ns.links.LinkSetMTU(link, mtu); err != nil {
		return nil, fmt.Errorf("MTU of %s in %s: %w", device, host, err)
	}
	return l.undoOnce(func() error { return h.ns.links.LinkSetMTU(link, link.Attrs().MTU) }), nil
}

// DropTooBig makes a host drop the ICMP errors that say that a packet was too big, on
// their way out, until undone: nobody tells its sender then.
func (l *Lab) DropTooBig(host string) (undo func(), err error) {
	h := l.Host(host)
	rules := map[string][]string{
		"iptables":  {"OUTPUT", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP"},
		"ip6tables": {"OUTPUT", "-p", "icmpv6", "--icmpv6-type", "packet-too-big", "-j", "DROP"},
	}
	for command, rule := range rules {
		if err := h.iptables(command, append([]string{"-I"}, rule...)...); err != nil {
			return nil, err
		}
	}
	return l.undoOnce(func() error {
		for command, rule := range rules {
			if err := h.iptables(command, append([]string{"-D"}, rule...)...); err != nil {
				return err
			}
		}
		return nil
	}), nil
}
