package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// usableTimeout is far above what the kernel takes, a second at most.
const usableTimeout = 10 * time.Second

// waitUsable waits until packets to and from a device get through. The kernel
// does two things some time after it was told to: it notices that a veth's
// other end is up, until when a bridge port is disabled, and it joins the
// multicast groups in which a host is asked for its IPv6 addresses. A packet
// sent earlier is lost, or late by the second that a retransmission takes.
func (h *Host) waitUsable(device string) error {
	for deadline := time.Now().Add(usableTimeout); ; time.Sleep(time.Millisecond) {
		err := h.usable(device)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v %s of %s: %w", usableTimeout, device, h.Name, err)
		}
	}
}

func (h *Host) usable(device string) error {
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	if link.Attrs().OperState != netlink.OperUp {
		return errors.New("no carrier")
	}
	addrs, err := h.ns.links.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	var groups string
	if err := h.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/igmp6")
		groups = string(table)
		return err
	}); err != nil {
		return err
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		if !joined(groups, device, solicitedNode(addr)) {
			return fmt.Errorf("no neighbour discovery for %v yet", addr)
		}
	}
	return nil
}

// solicitedNode is the group in which neighbours ask for an address (RFC 4291,
// section 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group, last := netip.MustParseAddr("ff02::1:ff00:0").As16(), addr.As16()
	copy(group[13:], last[13:])
	return netip.AddrFrom16(group)
}

// joined looks for a device's group in the kernel's table.
func joined(table, device string, group netip.Addr) bool {
	want := fmt.Sprintf("%x", group.AsSlice())
	for line := range strings.Lines(table) {
		// index device group users …
		if fields := strings.Fields(line); len(fields) > 2 && fields[1] == device && fields[2] == want {
			return true
		}
	}
	return false
}
