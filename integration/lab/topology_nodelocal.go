package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// What a node-local cache listens on, and the Service address by which it reaches the
// cluster's CoreDNS.
var (
	nodeLocalV4 = netip.MustParseAddr("169.254.20.10")
	nodeLocalV6 = netip.MustParseAddr("fd00:169:254:20::10")
	behindV4    = netip.MustParseAddr("10.96.0.11")
	behindV6    = netip.MustParseAddr("fd00:10:96::b")
)

// nodeLocal is a node-local cache as NodeLocal DNSCache sets it up: a CoreDNS on the node
// at an address that connection tracking leaves out, which asks the cluster's over TCP
// by a Service address.
func nodeLocal() Topology {
	t := Topology{
		Name: "node-local",
		Servers: []DNSServer{
			{
				Host: Node, Port: 53, Bind: []netip.Addr{nodeLocalV4, nodeLocalV6},
				Forward: [2]netip.Addr{behindV4, behindV6},
			},
			{Host: CoreDNS, Port: 53},
		},
		Services: [2]netip.AddrPort{netip.AddrPortFrom(nodeLocalV4, 53), netip.AddrPortFrom(nodeLocalV6, 53)},
		chain:    NodeInput,
	}
	t.service = (*Lab).buildNodeLocal
	return t
}

// buildNodeLocal makes the address and the rules; a bridge without ports stands for
// the device of type dummy.
func (l *Lab) buildNodeLocal() error {
	const device = "nodelocaldns"
	node := l.Host(Node)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	if err := node.ns.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add %s: %w", device, err)
	}
	if err := node.configure(device, netip.PrefixFrom(nodeLocalV4, 32), netip.PrefixFrom(nodeLocalV6, 128)); err != nil {
		return err
	}
	for i, f := range families() {
		local := []netip.Addr{nodeLocalV4, nodeLocalV6}[i].String()
		behind := []netip.Addr{behindV4, behindV6}[i].String()
		endpoint := l.endpoint()[i].String()
		for _, network := range []string{"udp", "tcp"} {
			for _, rule := range [][]string{
				{"-t", "raw", "-A", "PREROUTING", "-d", local, "-p", network, "--dport", "53", "-j", "NOTRACK"},
				{"-t", "raw", "-A", "OUTPUT", "-d", local, "-p", network, "--dport", "53", "-j", "NOTRACK"},
				{"-t", "raw", "-A", "OUTPUT", "-s", local, "-p", network, "--sport", "53", "-j", "NOTRACK"},
				{"-A", "INPUT", "-d", local, "-p", network, "--dport", "53", "-j", "ACCEPT"},
				{"-A", "OUTPUT", "-s", local, "-p", network, "--sport", "53", "-j", "ACCEPT"},
				{"-t", "nat", "-A", "PREROUTING", "-d", behind, "-p", network, "--dport", "53", "-j", "DNAT", "--to-destination", endpoint},
				{"-t", "nat", "-A", "OUTPUT", "-d", behind, "-p", network, "--dport", "53", "-j", "DNAT", "--to-destination", endpoint},
			} {
				if err := node.iptables(f.iptables, rule...); err != nil {
					return err
				}
			}
		}
		// The node has left with its uplink's address when the translation says where to.
		err := node.iptables(f.iptables, "-t", "nat", "-A", "POSTROUTING", "-s", f.uplink.String(), "-d", f.pods.String(), "-j", "MASQUERADE", "--random-fully")
		if err != nil {
			return err
		}
	}
	return nil
}
