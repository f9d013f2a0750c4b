package lab

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The second uplink's network.
var (
	nodeUplink2V4 = netip.MustParseAddr("192.168.50.2")
	nodeUplink2V6 = netip.MustParseAddr("fd00:192:168:50::2")
	router2V4     = netip.MustParseAddr("192.168.50.1")
	router2V6     = netip.MustParseAddr("fd00:192:168:50::1")
)

// family is what differs between IPv4 and IPv6 where a topology does the same for both.
type family struct {
	family                    int    // AF_INET, AF_INET6
	iptables                  string // the command
	all, pods                 netip.Prefix
	bits                      int        // of a network
	uplink, uplink2, router2  netip.Addr // of the node, of the node's second one, and its other end
	service                   netip.AddrPort
	loopback, unspecifiedAddr netip.Addr
}

func families() [2]family {
	return [2]family{
		{
			unix.AF_INET, "iptables", defaultRouteV4, PodNetV4, 24, NodeUplinkV4, nodeUplink2V4, router2V4, ServiceV4,
			netip.MustParseAddr("127.0.0.1"), netip.IPv4Unspecified(),
		},
		{
			unix.AF_INET6, "ip6tables", defaultRouteV6, PodNetV6, 64, nodeUplinkV6, nodeUplink2V6, router2V6, ServiceV6,
			netip.IPv6Loopback(), netip.IPv6Unspecified(),
		},
	}
}

// twoUplinks is a node whose upstream queries leave by one uplink and whose responses
// come back by another, as with asymmetric routes or a bond.
func twoUplinks() Topology {
	t := Topology{Name: "two-uplinks"}
	t.finish = func(l *Lab) error {
		if err := l.addUplink(); err != nil {
			return err
		}
		up := l.Host(Upstream)
		eth1, err := up.ns.links.LinkByName("eth1")
		if err != nil {
			return err
		}
		for _, f := range families() {
			route := &netlink.Route{LinkIndex: eth1.Attrs().Index, Dst: ipNet(f.pods), Gw: f.uplink2.AsSlice()}
			if f.family == unix.AF_INET6 {
				// A replaced route keeps its priority, which IPv6 sets itself.
				route.Priority = 1024
			}
			if err := up.ns.links.RouteReplace(route); err != nil {
				return err
			}
		}
		return nil
	}
	return t
}

// addUplink adds a second link, eth1, between the node and the upstream network.
func (l *Lab) addUplink() error {
	node, up := l.Host(Node), l.Host(Upstream)
	if err := node.vethPair("eth1", up, "eth1"); err != nil {
		return err
	}
	for _, f := range families() {
		if err := node.configure("eth1", netip.PrefixFrom(f.uplink2, f.bits)); err != nil {
			return err
		}
		if err := up.configure("eth1", netip.PrefixFrom(f.router2, f.bits)); err != nil {
			return err
		}
	}
	return errors.Join(up.waitUsable("eth1"), node.waitUsable("eth1"))
}
