package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a pod without a subnet takes for its gateway: the node answers for the IPv4
// address at every pod's device, and has the IPv6 one there.
var (
	podGatewayV4 = netip.MustParseAddr("169.254.1.1")
	podGatewayV6 = netip.MustParseAddr("fe80::1")
)

// routed is what Calico makes without an overlay: no bridge, each pod with /32 and
// /128 addresses behind a route of its own, proxy_arp at its device, a policy chain,
// reverse path filtering, and pods' traffic masqueraded where it leaves the node.
func routed() Topology {
	t := Topology{Name: "routed", node: noBridge, attach: attachRouted}
	t.finish = func(l *Lab) error {
		node := l.Host(Node)
		if err := node.sysctl(setting{"net/ipv4/conf/all/rp_filter", "1"}); err != nil {
			return err
		}
		for _, f := range families() {
			for _, rule := range [][]string{
				{"-N", "cali-FORWARD"},
				{"-A", "FORWARD", "-j", "cali-FORWARD"},
				{"-A", "cali-FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"},
				{"-A", "cali-FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"},
				{"-t", "nat", "-A", "POSTROUTING", "-s", f.pods.String(), "!", "-d", f.pods.String(), "-j", "MASQUERADE", "--random-fully"},
			} {
				if err := node.iptables(f.iptables, rule...); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return t
}

// vpc is what a VPC's CNI plugin makes: pods as in routed, with the gateway's link
// address given, whose traffic leaves by a second uplink with a table of routes of its
// own and the address of that uplink.
func vpc() Topology {
	t := Topology{Name: "vpc-cni", node: noBridge}
	t.attach = func(l *Lab, pod *Host, outside string) error {
		link, err := l.Host(Node).ns.links.LinkByName(outside)
		if err != nil {
			return err
		}
		if err := attachRouted(l, pod, outside); err != nil {
			return err
		}
		return pod.neighbour("eth0", podGatewayV4, link.Attrs().HardwareAddr)
	}
	t.finish = func(l *Lab) error {
		if err := l.addUplink(); err != nil {
			return err
		}
		return l.routePodsByUplink()
	}
	return t
}

// The table of routes of the second uplink, and where rules lead to it.
const (
	uplinkTable      = 2
	toPodsPriority   = 512
	fromPodsPriority = 1536
)

// routePodsByUplink sends what pods send to others than pods by the second uplink.
func (l *Lab) routePodsByUplink() error {
	node := l.Host(Node)
	for _, f := range families() {
		if err := node.routeInTable(uplinkTable, f.all, f.router2, "eth1"); err != nil {
			return err
		}
		to := netlink.NewRule()
		to.Family, to.Dst, to.Table, to.Priority = f.family, ipNet(f.pods), unix.RT_TABLE_MAIN, toPodsPriority
		from := netlink.NewRule()
		from.Family, from.Src, from.Table, from.Priority = f.family, ipNet(f.pods), uplinkTable, fromPodsPriority
		for _, rule := range []*netlink.Rule{to, from} {
			if err := node.ns.links.RuleAdd(rule); err != nil {
				return fmt.Errorf("rule %v in %s: %w", rule, node.Name, err)
			}
		}
		err := node.iptables(f.iptables, "-t", "nat", "-A", "POSTROUTING", "-s", f.pods.String(), "!", "-d", f.pods.String(),
			"-j", "SNAT", "--to-source", f.uplink2.String(), "--random-fully")
		if err != nil {
			return err
		}
	}
	return nil
}

// noBridge is the node's part where each pod has a route.
func noBridge(*Lab) error { return nil }

// attachRouted gives a pod's device on the node the gateway's addresses, and the pod
// its addresses and routes.
func attachRouted(l *Lab, pod *Host, outside string) error {
	node := l.Host(Node)
	if err := node.configure(outside, netip.PrefixFrom(podGatewayV6, 64)); err != nil {
		return err
	}
	err := node.sysctl(
		setting{"net/ipv4/conf/" + outside + "/proxy_arp", "1"},
		setting{"net/ipv4/neigh/" + outside + "/proxy_delay", "0"},
	)
	if err != nil {
		return err
	}
	addrs := []netip.Prefix{netip.PrefixFrom(pod.V4, 32), netip.PrefixFrom(pod.V6, 128)}
	if err := pod.configure("eth0", addrs...); err != nil {
		return err
	}
	for _, r := range []struct {
		host   *Host
		device string
		dst    netip.Prefix
		via    netip.Addr
	}{
		{pod, "eth0", netip.PrefixFrom(podGatewayV4, 32), netip.Addr{}},
		{pod, "eth0", defaultRouteV4, podGatewayV4},
		{pod, "eth0", defaultRouteV6, podGatewayV6},
		{node, outside, addrs[0], netip.Addr{}},
		{node, outside, addrs[1], netip.Addr{}},
	} {
		if err := r.host.routeBy(r.device, r.dst, r.via); err != nil {
			return err
		}
	}
	return errors.Join(pod.waitUsable("eth0"), node.waitUsable(outside))
}

// routeBy makes a route by a device, direct if via is the zero Addr.
func (h *Host) routeBy(device string, dst netip.Prefix, via netip.Addr) error {
	return h.routeInTable(unix.RT_TABLE_MAIN, dst, via, device)
}

func (h *Host) routeInTable(table int, dst netip.Prefix, via netip.Addr, device string) error {
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Table: table}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.ns.links.RouteAdd(route); err != nil {
		return fmt.Errorf("route to %s by %s in %s: %w", dst, device, h.Name, err)
	}
	return nil
}

// neighbour gives the link address of a neighbour, for good.
func (h *Host) neighbour(device string, addr netip.Addr, mac net.HardwareAddr) error {
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	err = h.ns.links.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: unix.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s by %s in %s: %w", addr, device, h.Name, err)
	}
	return nil
}
