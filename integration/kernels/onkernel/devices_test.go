package onkernel

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
	"github.com/dnstrace/dnstrace/trace"
)

// canMake tells whether this kernel has a kind of device, by making one.
func canMake(link netlink.Link) bool {
	if netlink.LinkAdd(link) != nil {
		return false
	}
	return netlink.LinkDel(link) == nil
}

// hasOverlays tries a VLAN above a veth: the loopback device takes none.
func hasOverlays(t *testing.T) bool {
	below := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "below"}, PeerName: "below2"}
	if netlink.LinkAdd(below) != nil {
		return false
	}
	above := netlink.LinkAttrs{Name: "try", ParentIndex: indexOf(t, "below")}
	has := canMake(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "try"}, VxlanId: 1, Port: 8472}) && canMake(&netlink.Vlan{LinkAttrs: above, VlanId: 1})
	if err := netlink.LinkDel(below); err != nil {
		t.Fatal(err)
	}
	return has
}

func hasVeth() bool {
	return canMake(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "try"}, PeerName: "try2"})
}

// vxlan is the device of one end, vlan the same by a tag: both above a device.
func vxlan(t *testing.T, above, local, remote string) netlink.Link {
	return &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "overlay"}, VxlanId: 77, VtepDevIndex: indexOf(t, above),
		SrcAddr: net.ParseIP(local), Group: net.ParseIP(remote), Port: 8472}
}

func vlan(t *testing.T, above, _, _ string) netlink.Link {
	return &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "overlay", ParentIndex: indexOf(t, above)}, VlanId: 5}
}

func indexOf(t *testing.T, device string) int {
	t.Helper()
	link, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

// A lookup between two machines, through a device of VXLAN and one of a VLAN: one
// exchange, which tells on the wire what was around it.
func TestLookupThroughOverlay(t *testing.T) {
	if lacks(t, feature.Overlay) {
		return
	}
	tr := startTracer(t)
	const here, there = "192.0.2.1", "192.0.2.2"
	remote := pod(t, "wire", there, here)
	for _, tc := range []struct {
		name, here, there string
		device            func(t *testing.T, above, local, remote string) netlink.Link
		marked            func(s trace.Sighting) bool
	}{
		{"vxlan.test.", "10.9.0.1", "10.9.0.2", vxlan, func(s trace.Sighting) bool {
			return s.Tunnel != nil && s.Tunnel.VNI == 77 && s.Tunnel.Dst.Port() == 8472 &&
				(s.Tunnel.Src.Addr().String() == here) == (s.Message == trace.MessageQuery)
		}},
		{"vlan.test.", "10.8.0.1", "10.8.0.2", vlan, func(s trace.Sighting) bool { return s.VLAN == 5 }},
	} {
		device := tc.device(t, "wire", here, there)
		if err := netlink.LinkAdd(device); err != nil {
			t.Fatal(err)
		}
		addAddress(t, "overlay", tc.here+"/24")
		inside(t, remote, func() error {
			if err := netlink.LinkAdd(tc.device(t, "eth0", there, here)); err != nil {
				return err
			}
			addAddress(t, "overlay", tc.there+"/24")
			serve(t, "udp", tc.there+":53")
			return nil
		})
		client := dns.Client{Timeout: patience}
		if _, _, err := client.Exchange(new(dns.Msg).SetQuestion(tc.name, dns.TypeA), tc.there+":53"); err != nil {
			t.Fatal(err)
		}
		ex := tr.exchange(tc.name)
		wire := map[string]int{}
		for _, s := range ex.Path.All() {
			onWire := s.IfName == "wire" || s.IfName == "eth0"
			if onWire {
				wire[s.Message+" "+s.Direction]++
			}
			if tc.marked(s) != onWire {
				t.Errorf("%s: %+v, tunnel %+v", tc.name, s, s.Tunnel)
			}
		}
		if all := tr.exchanges(tc.name); len(all) != 1 || ex.Outcome != trace.OutcomeAnswered || len(wire) != 4 {
			t.Errorf("%s: %d exchanges, %s, on the wire %v", tc.name, len(all), ex.Outcome, wire)
		}
		for _, ns := range []func(func() error){func(f func() error) { aside(t, f) }, func(f func() error) { inside(t, remote, f) }} {
			ns(func() error {
				link, err := netlink.LinkByName("overlay")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
		}
	}
}

// What a node does not forward, because it has no route or one that says no.
func TestNoRoute(t *testing.T) {
	if lacks(t, feature.Routes) {
		return
	}
	tr := startTracer(t)
	client := pod(t, "routed", "10.243.1.2", "10.243.1.1")
	sysctl(t, "net/ipv4/ip_forward", "1")
	for _, tc := range []struct {
		name, server string
		refuses      int // type of the route; 0: there is none
	}{
		{"nowhere.test.", "203.0.113.1", 0},
		{"unreachable.test.", "203.0.113.2", unix.RTN_UNREACHABLE},
		{"prohibit.test.", "203.0.113.3", unix.RTN_PROHIBIT},
		{"blackhole.test.", "203.0.113.4", unix.RTN_BLACKHOLE},
	} {
		if tc.refuses != 0 {
			to := &net.IPNet{IP: net.ParseIP(tc.server), Mask: net.CIDRMask(32, 32)}
			if err := netlink.RouteAdd(&netlink.Route{Dst: to, Type: tc.refuses}); err != nil {
				t.Fatal(err)
			}
		}
		inside(t, client, func() error {
			ask(t, tc.server+":53", tc.name)
			return nil
		})
		if tc.refuses == 0 {
			tr.dropped(tc.name, "IP_INNOROUTES", "no route")
			continue
		}
		ex := tr.exchange(tc.name)
		if d := ex.LastDrop(); ex.Outcome != trace.OutcomeDropped || d == nil || !strings.Contains(d.Description, "one that refuses") && d.Description != "route that refuses" {
			t.Errorf("%s: %s, %+v", tc.name, ex.Outcome, d)
		} else {
			t.Logf("%s: %q, reason %q, in %s", tc.name, d.Description, d.Reason, d.Where)
		}
	}
}
