package lab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The little node's address plan, the usual one of a one-node cluster.
const (
	bridgeName       = "cni0"
	coreDNSOctet     = 2  // 10.244.0.2, fd00:10:244::2
	firstClientOctet = 4  // 10.244.0.4, fd00:10:244::4
	firstUpstream    = 10 // 192.168.49.10, fd00:192:168:49::10
	maxUpstreams     = 40
)

// The networks of the lab; they exist only in its namespaces.
var (
	PodNetV4      = netip.MustParsePrefix("10.244.0.0/24")
	PodNetV6      = netip.MustParsePrefix("fd00:10:244::/64")
	UpstreamNetV4 = netip.MustParsePrefix("192.168.49.0/24")
	UpstreamNetV6 = netip.MustParsePrefix("fd00:192:168:49::/64")
)

// podAddrs are the addresses of the pod with that last octet.
func podAddrs(octet byte) (v4, v6 netip.Addr) {
	v4 = netip.AddrFrom4([4]byte{10, 244, 0, octet})
	return v4, netip.MustParseAddr(fmt.Sprintf("fd00:10:244::%x", octet))
}

// upstreamAddrs are the addresses of the i-th upstream. The IPv6 address reads
// like the IPv4 one: ::10 beside .10.
func upstreamAddrs(i int) (v4, v6 netip.Addr) {
	v4 = netip.AddrFrom4([4]byte{192, 168, 49, byte(firstUpstream + i)})
	return v4, netip.MustParseAddr(fmt.Sprintf("fd00:192:168:49::%d", firstUpstream+i))
}

var (
	gatewayV4, gatewayV6           = podAddrs(1) // cni0
	nodeUplinkV4                   = netip.MustParseAddr("192.168.49.2")
	nodeUplinkV6                   = netip.MustParseAddr("fd00:192:168:49::2")
	routerV4                       = netip.MustParseAddr("192.168.49.1") // held by the upstream
	routerV6                       = netip.MustParseAddr("fd00:192:168:49::1")
	defaultRouteV4, defaultRouteV6 = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
)

// NodeUplinkV4 is the node's address in the upstreams' network.
var NodeUplinkV4 = nodeUplinkV4

// buildNode makes the node's namespace, with its part of the pods' network.
func (l *Lab) buildNode() error {
	node, err := l.addHost(Node, gatewayV4, gatewayV6)
	if err != nil {
		return err
	}
	err = node.sysctl(
		setting{"net/ipv4/ip_forward", "1"},
		setting{"net/ipv6/conf/all/forwarding", "1"},
		// The kernel's reverse path filter would hide drops that a test wants.
		setting{"net/ipv4/conf/all/rp_filter", "0"},
		setting{"net/ipv4/conf/default/rp_filter", "0"},
		setting{"net/bridge/bridge-nf-call-iptables", "1"},
		setting{"net/bridge/bridge-nf-call-ip6tables", "1"},
	)
	if err != nil {
		return err
	}
	return l.cfg.Topology.node(l)
}

// buildBridge makes the bridge that pods attach to.
func (l *Lab) buildBridge() error { return l.buildBridgeAgeing(nil) }

// buildBridgeAgeing makes the bridge, with the time for which it remembers where an
// address is, in hundredths of a second; nil for the kernel's default, 0 for never.
func (l *Lab) buildBridgeAgeing(ageing *uint32) error {
	node := l.Host(Node)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	// Snooping without a querier may hold back neighbour discovery.
	snooping := false
	if err := node.ns.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping, AgeingTime: ageing}); err != nil {
		return fmt.Errorf("add bridge %s: %w", bridgeName, err)
	}
	return node.configure(bridgeName,
		netip.PrefixFrom(gatewayV4, PodNetV4.Bits()), netip.PrefixFrom(gatewayV6, PodNetV6.Bits()))
}

// buildUpstream makes the network beyond the node, with every upstream address.
func (l *Lab) buildUpstream() error {
	v4, v6 := upstreamAddrs(0)
	up, err := l.addHost(Upstream, v4, v6)
	if err != nil {
		return err
	}
	node := l.Host(Node)
	if err := node.vethTo(up, "eth0"); err != nil {
		return err
	}
	bits4, bits6 := UpstreamNetV4.Bits(), UpstreamNetV6.Bits()
	if err := node.configure("eth0", netip.PrefixFrom(nodeUplinkV4, bits4), netip.PrefixFrom(nodeUplinkV6, bits6)); err != nil {
		return err
	}
	addrs := []netip.Prefix{netip.PrefixFrom(routerV4, bits4), netip.PrefixFrom(routerV6, bits6)}
	for i := range l.cfg.Upstreams {
		v4, v6 := upstreamAddrs(i)
		addrs = append(addrs, netip.PrefixFrom(v4, bits4), netip.PrefixFrom(v6, bits6))
	}
	if err := up.configure("eth0", addrs...); err != nil {
		return err
	}
	for _, r := range []struct {
		host *Host
		dst  netip.Prefix
		via  netip.Addr
	}{
		{node, defaultRouteV4, routerV4}, {node, defaultRouteV6, routerV6},
		{up, PodNetV4, nodeUplinkV4}, {up, PodNetV6, nodeUplinkV6},
	} {
		if err := r.host.route(r.dst, r.via); err != nil {
			return err
		}
	}
	return errors.Join(up.waitUsable("eth0"), node.waitUsable("eth0"))
}

// buildServer makes the pod behind the Service address.
func (l *Lab) buildServer() error {
	v4, v6 := podAddrs(coreDNSOctet)
	_, err := l.addPod(CoreDNS, v4, v6)
	return err
}

// AddPod adds a pod to the bridge, with the next free addresses, also while
// traffic runs. It is removed with the lab, or before that by RemovePod.
func (l *Lab) AddPod(name string) (*Host, error) {
	l.mu.Lock()
	l.octet++
	v4, v6 := podAddrs(l.octet)
	l.mu.Unlock()
	return l.addPod(name, v4, v6)
}

// RemovePod removes a pod, its namespace and its side of the bridge, and kills
// what ran in it, as when a pod is evicted without notice. Rules and tracked
// connections that lead to it stay.
func (l *Lab) RemovePod(name string) error {
	h := l.Host(name)
	l.mu.Lock()
	delete(l.hosts, name)
	l.mu.Unlock()
	// Destruction of a namespace is lazy; the link goes at once.
	link, err := h.ns.links.LinkByName("eth0")
	if err == nil {
		err = h.ns.links.LinkDel(link)
	}
	if err != nil {
		l.report(h.remove())
		return fmt.Errorf("remove eth0 of %s: %w", name, err)
	}
	return h.remove()
}

func (l *Lab) addPod(name string, v4, v6 netip.Addr) (*Host, error) {
	pod, err := l.addHost(name, v4, v6)
	if err != nil {
		return nil, err
	}
	node, outside := l.Host(Node), vethName(name)
	if err := node.vethTo(pod, outside); err != nil {
		return nil, err
	}
	return pod, l.cfg.Topology.attach(l, pod, outside)
}

// attachToBridge puts a pod's device on the node into the bridge, and gives the pod
// its addresses and routes.
func (l *Lab) attachToBridge(pod *Host, outside string) error {
	node := l.Host(Node)
	if err := node.enslave(outside, bridgeName); err != nil {
		return err
	}
	err := pod.configure("eth0", netip.PrefixFrom(pod.V4, PodNetV4.Bits()), netip.PrefixFrom(pod.V6, PodNetV6.Bits()))
	if err != nil {
		return err
	}
	if err := pod.route(defaultRouteV4, gatewayV4); err != nil {
		return err
	}
	if err := pod.route(defaultRouteV6, gatewayV6); err != nil {
		return err
	}
	return errors.Join(pod.waitUsable("eth0"), node.waitUsable(outside), node.waitUsable(bridgeName))
}

// vethName is the name of a pod's device on the node's side, as CNI plugins
// name it: veth and eight hex digits.
func vethName(pod string) string {
	h := fnv.New32a()
	h.Write([]byte(pod))
	return fmt.Sprintf("veth%08x", h.Sum32())
}

// vethTo makes a veth pair between h, where it is called outside, and peer,
// where it is eth0. Both ends are born in their namespaces.
func (h *Host) vethTo(peer *Host, outside string) error { return h.vethPair(outside, peer, "eth0") }

// vethPair is vethTo with a name for the peer's end.
func (h *Host) vethPair(outside string, peer *Host, inside string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outside
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: inside, PeerNamespace: netlink.NsFd(peer.ns.handle)}
	if err := h.ns.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth between %s and %s: %w", h.Name, peer.Name, err)
	}
	return nil
}

// enslave attaches a device to a bridge and brings it up.
func (h *Host) enslave(device, bridge string) error {
	port, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	master, err := h.ns.links.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := h.ns.links.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("attach %s to %s: %w", device, bridge, err)
	}
	return h.up(device)
}

// configure brings a device up and gives it addresses.
func (h *Host) configure(device string, addrs ...netip.Prefix) error {
	if err := h.up(device); err != nil {
		return err
	}
	link, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.ns.links.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s on %s of %s: %w", addr, device, h.Name, err)
		}
	}
	return nil
}

func (h *Host) up(device string) error {
	link, err := h.ns.links.LinkByName(device)
	if err == nil {
		err = h.ns.links.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring up %s of %s: %w", device, h.Name, err)
	}
	return nil
}

func (h *Host) route(dst netip.Prefix, via netip.Addr) error {
	if err := h.ns.links.RouteAdd(&netlink.Route{Dst: ipNet(dst), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route to %s via %s in %s: %w", dst, via, h.Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
