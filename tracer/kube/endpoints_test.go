package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/dnstrace/dnstrace/trace"
)

const kubeDNS = "kube-system/kube-dns"

// describe says what the slices say of serverIP.
func (e *endpoints) describe() string {
	s := e.state(kubeDNS, serverIP, start)
	if s == nil {
		return "unknown"
	}
	text := s.State + " " + s.Pod
	if s.Since != nil {
		text += fmt.Sprint(" ", s.Since.Duration())
	}
	return text
}

// What becomes of an endpoint, step by step.
func TestEndpointState(t *testing.T) {
	e := newEndpoints([]uint16{53})
	other, addr := "10.244.1.9", serverIP.String()
	const pod = "kube-system/coredns-10.244.0.2"
	for i, step := range []struct {
		name string
		do   func(now time.Time)
		want string
	}{
		{"no slice yet", func(time.Time) {}, "unknown"},
		{"another address", func(now time.Time) { e.set(aSlice("a", true, other), now) }, "unlisted "},
		{"listed", func(now time.Time) { e.set(aSlice("a", true, other, addr), now) }, "ready " + pod},
		{"not ready", func(now time.Time) { e.set(aSlice("a", false, other, addr), now) }, "not_ready " + pod + " 3s"},
		{"still not ready", func(now time.Time) { e.set(aSlice("a", false, other, addr), now) }, "not_ready " + pod + " 3s"},
		{"ready in another slice", func(now time.Time) { e.set(aSlice("b", true, addr), now) }, "ready " + pod},
		{"moved to it", func(now time.Time) { e.set(aSlice("a", true, other), now) }, "ready " + pod},
		{"removed", func(now time.Time) { e.set(aSlice("b", true, other), now) }, "removed " + pod + " 7s"},
		{"listed again", func(now time.Time) { e.set(aSlice("b", true, addr), now) }, "ready " + pod},
		{"its slice is gone", func(now time.Time) { e.remove(keyOf(aSlice("b", true)), now) }, "removed " + pod + " 9s"},
		{"all are gone", func(now time.Time) { e.remove(keyOf(aSlice("a", true)), now) }, "removed " + pod + " 9s"},
	} {
		step.do(start.Add(time.Duration(i) * time.Second))
		if got := e.describe(); got != step.want {
			t.Errorf("%s: got %q, expected %q", step.name, got, step.want)
		}
	}
	if len(e.byAddr)+len(e.services)+len(e.slices) != 0 {
		t.Errorf("left: %v, %v, %v", e.byAddr, e.services, e.slices)
	}
}

// A Service without a ready endpoint: since when, and only where all of its slices
// would be known.
func TestNoReadyEndpoint(t *testing.T) {
	addr := serverIP.String()
	for _, tc := range []struct {
		name     string
		protocol corev1.Protocol
		change   func(c *Cluster)
		asked    time.Duration // after start
		want     string
	}{
		{"never had one", corev1.ProtocolUDP, func(*Cluster) {}, 0, trace.ServiceNoEndpoints},
		{"of TCP, whose slices may have another port", corev1.ProtocolTCP, func(*Cluster) {}, 0, ""},
		{"ready", corev1.ProtocolUDP, func(c *Cluster) { c.endpoints.set(aSlice("a", true, addr), start) }, 0, ""},
		{"not ready", corev1.ProtocolUDP, func(c *Cluster) { c.endpoints.set(aSlice("a", false, addr), start) }, 0, trace.ServiceNoEndpoints},
		{"asked before it was lost", corev1.ProtocolUDP, lose, time.Second, ""},
		{"asked after it was lost", corev1.ProtocolUDP, lose, 3 * time.Second, trace.ServiceNoEndpoints},
		{"there again", corev1.ProtocolUDP, func(c *Cluster) { lose(c); c.endpoints.set(aSlice("a", true, addr), start) }, 3 * time.Second, ""},
		{"one of two left", corev1.ProtocolUDP, func(c *Cluster) { c.endpoints.set(aSlice("b", true, "10.244.1.9"), start); lose(c) }, 3 * time.Second, ""},
		{"moved to another slice", corev1.ProtocolUDP, func(c *Cluster) { c.endpoints.set(aSlice("b", true, addr), start); lose(c) }, 3 * time.Second, ""},
		{"its slice is gone", corev1.ProtocolUDP, func(c *Cluster) {
			c.endpoints.set(aSlice("a", true, addr), start)
			c.endpoints.remove(keyOf(aSlice("a", true)), start.Add(2*time.Second))
		}, 3 * time.Second, trace.ServiceNoEndpoints},
	} {
		c := known(aService("kube-dns", vip.String(), tc.protocol, 53))
		tc.change(c)
		ex := lookup(tc.asked)
		ex.NAT, ex.Protocol = nil, strings.ToLower(string(tc.protocol))
		c.Exchange(ex)
		if got := ex.Server.ServiceState; got != tc.want {
			t.Errorf("%s: %q, expected %q", tc.name, got, tc.want)
		}
	}
}

// lose tells of an endpoint that is ready at start, and lost two seconds later.
func lose(c *Cluster) {
	c.endpoints.set(aSlice("a", true, serverIP.String()), start)
	c.endpoints.set(aSlice("a", true), start.Add(2*time.Second))
}

// Slices of what speaks no DNS are not kept; a slice that stops to is dropped.
func TestOnlySlicesThatSpeakDNS(t *testing.T) {
	e := newEndpoints([]uint16{53})
	tcp, port := corev1.ProtocolTCP, int32(8080)
	web := aSlice("a", true, serverIP.String())
	web.Ports = []discoveryv1.EndpointPort{{Protocol: &tcp, Port: &port}}
	e.set(web, start)
	if e.addrs() != 0 {
		t.Error("a web server's slice is kept")
	}
	e.set(aSlice("a", true, serverIP.String()), start)
	if got := e.strip(aSlice("a", true, serverIP.String())); len(got.Endpoints) != 1 || len(e.strip(web).Endpoints) != 0 || e.strip(web).Name != "a" {
		t.Error("what is needed is stripped, or what is not is left")
	}
	e.set(e.strip(web), start)
	if e.addrs() != 0 || len(e.slices) != 0 {
		t.Error("it is kept for ever")
	}
}

func TestRemovedEndpointsAreBounded(t *testing.T) {
	e := newEndpoints([]uint16{53})
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range maxRemoved + 100 {
		addr = addr.Next()
		e.set(aSlice("a", true, addr.String()), start.Add(time.Duration(i)*time.Millisecond))
	}
	if len(e.removed) != maxRemoved {
		t.Errorf("%d, expected %d", len(e.removed), maxRemoved)
	}
	if s := e.state(kubeDNS, netip.MustParseAddr("10.0.0.1"), start); s.State != trace.EndpointUnlisted {
		t.Errorf("the oldest is still %+v", s)
	}
}

func TestServices(t *testing.T) {
	c := known(aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53), aService("web", "10.96.0.80", corev1.ProtocolTCP, 80),
		aService("dns-tcp", "10.96.0.53", corev1.ProtocolTCP, 53), aService("headless", "None", corev1.ProtocolUDP, 53))
	both := aService("lb", "10.96.0.11", corev1.ProtocolUDP, 53)
	both.Spec.ExternalIPs = []string{"192.0.2.53", vip.String()}
	both.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "2001:db8::53"}, {Hostname: "lb.example."}}
	for addr, want := range map[string]string{vip.String(): kubeDNS, "::ffff:10.96.0.10": kubeDNS, "10.96.0.80": "", "10.96.0.53": "kube-system/dns-tcp"} {
		if got := c.services.name(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, expected %q", addr, got, want)
		}
	}
	c.services.set(both)
	for addr, want := range map[string]string{"2001:db8::53": "kube-system/lb", "192.0.2.53": "kube-system/lb", vip.String(): ""} {
		if got := c.services.name(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, expected %q", addr, got, want)
		}
	}
	c.services.remove(keyOf(both))
	if got := c.services.name(vip); got != kubeDNS {
		t.Errorf("after the other is gone: %q", got)
	}
}
