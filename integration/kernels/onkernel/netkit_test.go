package onkernel

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
	"github.com/dnstrace/dnstrace/integration/lab/datapath"
	"github.com/dnstrace/dnstrace/trace"
)

// netkitFamily is what the node with netkit devices has of IPv4, and of IPv6.
type netkitFamily struct {
	name                                      string
	client, server, service, uplink, upstream string
	bits                                      int // of an address
}

var netkitFamilies = []netkitFamily{
	{"4", "10.242.1.2", "10.242.2.2", "10.96.0.20", "198.51.100.1", "198.51.100.2", 32},
	{"6", "fd00:242::1:2", "fd00:242::2:2", "fd00:96::20", "fd00:198::1", "fd00:198::2", 128},
}

// hasNetkit tells whether the kernel has such devices.
func hasNetkit() bool {
	return canMake(&netlink.Netkit{LinkAttrs: netlink.LinkAttrs{Name: "try"}, Mode: netlink.NETKIT_MODE_L3})
}

// Pods behind netkit devices, with eBPF programs that translate the Service, deliver from
// pod to pod, and hand over what comes from outside behind the pod's device: each lookup
// arrives, and is one exchange.
func TestNetkit(t *testing.T) {
	if lacks(t, feature.Netkit) {
		return
	}
	tr := startTracer(t)
	client, server, upstream := netkitPod(t, "nkclient"), netkitPod(t, "nkserver"), newNetNS(t)
	netkit(t, "nkuplink", upstream, netlink.NETKIT_MODE_L2)
	for _, f := range netkitFamilies {
		f.configure(t, client, server, upstream)
	}
	attachNetkit(t)
	for _, f := range netkitFamilies {
		for _, network := range []string{"udp", "tcp"} {
			name := fmt.Sprintf("netkit-%s%s.test.", network, f.name)
			inside(t, server, func() error {
				serve(t, network, net.JoinHostPort(f.server, "53"))
				return nil
			})
			inside(t, upstream, func() error {
				serve(t, network, net.JoinHostPort(f.upstream, "53"))
				return nil
			})
			answeredBy(t, client, network, name, f.service)
			answeredBy(t, server, network, "up-"+name, f.upstream)
			for name, asked := range map[string]string{name: f.service, "up-" + name: f.upstream} {
				ex := tr.exchange(name)
				if all := tr.exchanges(name); len(all) != 1 || ex.Outcome != trace.OutcomeAnswered || ex.ServerIP != netip.MustParseAddr(asked) {
					t.Errorf("%s: %d exchanges, %s by %s, path %+v", name, len(all), ex.Outcome, ex.ServerIP, ex.Path)
				}
			}
		}
	}
	inside(t, client, func() error {
		ask(t, net.JoinHostPort(netkitFamilies[0].service, "53"), "drop.netkit.test.")
		return nil
	})
	if ex := tr.exchange("drop.netkit.test."); ex.Outcome != trace.OutcomeDropped {
		t.Errorf("drop.netkit.test.: %s, path %+v", ex.Outcome, ex.Path)
	}
}

// newNetNS makes a network namespace with its loopback device up.
func newNetNS(t *testing.T) (ns netns.NsHandle) {
	t.Helper()
	aside(t, func() (err error) {
		if ns, err = netns.New(); err == nil {
			up(t, "lo")
		}
		return err
	})
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// netkit makes a pair of netkit devices, of which the primary one stays here and the other
// is eth0 in a namespace.
func netkit(t *testing.T, name string, peer netns.NsHandle, mode netlink.NetkitMode) {
	t.Helper()
	device := &netlink.Netkit{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: mode, Policy: netlink.NETKIT_POLICY_FORWARD, PeerPolicy: netlink.NETKIT_POLICY_FORWARD}
	device.SetPeerAttrs(&netlink.LinkAttrs{Name: "eth0", Namespace: netlink.NsFd(peer)})
	if err := netlink.LinkAdd(device); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(device); err != nil {
			t.Error(err)
		}
	})
	up(t, name)
	inside(t, peer, func() error {
		up(t, "eth0")
		return nil
	})
}

// netkitPod makes a namespace behind a netkit device that carries IP packets as they are.
func netkitPod(t *testing.T, name string) netns.NsHandle {
	t.Helper()
	ns := newNetNS(t)
	netkit(t, name, ns, netlink.NETKIT_MODE_L3)
	return ns
}

// configure gives addresses and routes.
func (f netkitFamily) configure(t *testing.T, client, server, upstream netns.NsHandle) {
	t.Helper()
	subnet := f.bits - 8
	addAddress(t, "nkuplink", fmt.Sprintf("%s/%d", f.uplink, subnet))
	inside(t, upstream, func() error {
		addAddress(t, "eth0", fmt.Sprintf("%s/%d", f.upstream, subnet))
		return nil
	})
	for address, pod := range map[string]netns.NsHandle{f.client: client, f.server: server} {
		inside(t, pod, func() error {
			addAddress(t, "eth0", fmt.Sprintf("%s/%d", address, f.bits))
			everywhere := &net.IPNet{IP: make(net.IP, f.bits/8), Mask: net.CIDRMask(0, f.bits)}
			return netlink.RouteAdd(&netlink.Route{Dst: everywhere, LinkIndex: indexOf(t, "eth0"), Scope: netlink.SCOPE_LINK})
		})
	}
}

// attachNetkit attaches the programs until the test ends.
func attachNetkit(t *testing.T) {
	t.Helper()
	v4, v6 := netkitFamilies[0], netkitFamilies[1]
	service := func(f netkitFamily) datapath.Service {
		return datapath.NewService(netip.MustParseAddr(f.service), netip.AddrPortFrom(netip.MustParseAddr(f.server), 53))
	}
	coll, err := datapath.Load(datapath.LoadPackets, map[string]any{
		"service4": service(v4), "service6": service(v6), "services": true,
		"node4": netip.MustParseAddr(v4.uplink).As16(), "node6": netip.MustParseAddr(v6.uplink).As16(),
		"uplink": uint32(indexOf(t, "nkuplink")), "uplink_to_pod": true, "into_pod": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	for device, addresses := range map[string][]string{"nkclient": {v4.client, v6.client}, "nkserver": {v4.server, v6.server}} {
		for _, a := range addresses {
			if err := coll.Maps["pods"].Put(netip.MustParseAddr(a).As16(), uint32(indexOf(t, device))); err != nil {
				t.Fatal(err)
			}
		}
		keep(t)(link.AttachNetkit(link.NetkitOptions{Interface: indexOf(t, device), Program: coll.Programs["from_pod"], Attach: ebpf.AttachNetkitPeer}))
	}
	uplink := indexOf(t, "nkuplink")
	keep(t)(link.AttachTCX(link.TCXOptions{Interface: uplink, Program: coll.Programs["from_uplink"], Attach: ebpf.AttachTCXIngress}))
	keep(t)(link.AttachTCX(link.TCXOptions{Interface: uplink, Program: coll.Programs["to_uplink"], Attach: ebpf.AttachTCXEgress}))
}

// keep closes what was attached when the test ends.
func keep(t *testing.T) func(link.Link, error) {
	t.Helper()
	return func(l link.Link, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// answeredBy makes a lookup in a namespace, which is to be answered.
func answeredBy(t *testing.T, ns netns.NsHandle, network, name, server string) {
	t.Helper()
	inside(t, ns, func() error {
		conn, err := net.Dial(network, net.JoinHostPort(server, "53"))
		if err != nil {
			return err
		}
		defer conn.Close()
		c := dns.Client{Timeout: patience}
		_, _, err = c.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: conn})
		return err
	})
}
