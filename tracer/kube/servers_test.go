package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// withPorts is a Service with ports like name:protocol:port.
func withPorts(s *corev1.Service, ports ...string) *corev1.Service {
	s.Spec.Ports = nil
	for _, text := range ports {
		name, protocol, port := portOf(text)
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Protocol: protocol, Port: port})
	}
	return s
}

// sliceOf is a slice of a Service with ports like name:protocol:port.
func sliceOf(service string, ports []string, addrs ...string) *discoveryv1.EndpointSlice {
	s := aSlice(service+"-1", true, addrs...)
	s.Labels[discoveryv1.LabelServiceName], s.Ports = service, nil
	for _, text := range ports {
		name, protocol, port := portOf(text)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &port})
	}
	return s
}

func portOf(text string) (name string, protocol corev1.Protocol, port int32) {
	parts := strings.Split(text, ":")
	_, _ = fmt.Sscan(parts[2], &port)
	return parts[0], corev1.Protocol(parts[1]), port
}

// Where Services lead to from port 53, and which one it is: none where that is not sure.
func TestServers(t *testing.T) {
	const addr = "10.244.0.2"
	dns := []string{"dns:UDP:5353", "dns-tcp:TCP:5353", "metrics:TCP:9153"}
	service := func(name, ip string) *corev1.Service {
		return withPorts(aService(name, ip, corev1.ProtocolUDP, 53), "dns:UDP:53", "dns-tcp:TCP:53", "metrics:TCP:9153")
	}
	at := func(addr string) netip.AddrPort { return netip.MustParseAddrPort(addr) }
	for name, tc := range map[string]struct {
		known   []any
		addrs   []netip.AddrPort
		service string // of addr, port 5353
	}{
		"a translated port": {[]any{service("kube-dns", "10.96.0.10"), sliceOf("kube-dns", dns, addr, "10.244.1.2")},
			[]netip.AddrPort{at("10.244.0.2:5353"), at("10.244.1.2:5353")}, kubeDNS},
		"IPv6": {[]any{service("kube-dns", "10.96.0.10"), sliceOf("kube-dns", dns, "fd00::2")}, []netip.AddrPort{at("[fd00::2]:5353")}, ""},
		"the slice first": {[]any{sliceOf("kube-dns", dns, addr), service("kube-dns", "10.96.0.10")},
			[]netip.AddrPort{at("10.244.0.2:5353")}, kubeDNS},
		"two Services": {[]any{service("kube-dns", "10.96.0.10"), service("other", "10.96.0.11"), sliceOf("kube-dns", dns, addr), sliceOf("other", dns, addr)},
			[]netip.AddrPort{at("10.244.0.2:5353")}, ""},
		"beside one without an address": {[]any{service("kube-dns", "10.96.0.10"), service("headless", "None"), sliceOf("kube-dns", dns, addr), sliceOf("headless", dns, addr)},
			[]netip.AddrPort{at("10.244.0.2:5353")}, ""},
		"one without an address": {[]any{service("headless", "None"), sliceOf("headless", dns, addr)}, []netip.AddrPort{at("10.244.0.2:5353")}, ""},
		"beside one for metrics": {[]any{service("kube-dns", "10.96.0.10"), sliceOf("kube-dns", dns, addr),
			withPorts(aService("metrics", "10.96.0.12", corev1.ProtocolTCP, 9153), "metrics:TCP:9153", "dns:UDP:5300"), sliceOf("metrics", dns, addr)},
			[]netip.AddrPort{at("10.244.0.2:5353")}, kubeDNS},
		"no Service":    {[]any{sliceOf("kube-dns", dns, addr)}, nil, ""},
		"another port":  {[]any{withPorts(aService("kube-dns", "10.96.0.10", corev1.ProtocolUDP, 5300), "dns:UDP:5300"), sliceOf("kube-dns", dns, addr)}, nil, ""},
		"TCP alone":     {[]any{withPorts(aService("kube-dns", "10.96.0.10", corev1.ProtocolUDP, 53), "dns-tcp:TCP:53"), sliceOf("kube-dns", dns, addr)}, []netip.AddrPort{at("10.244.0.2:5353")}, ""},
		"the same port": {[]any{aService("kube-dns", "10.96.0.10", corev1.ProtocolUDP, 53), aSlice("a", true, addr)}, []netip.AddrPort{at("10.244.0.2:53")}, ""},
		"a port that has no number": {[]any{service("kube-dns", "10.96.0.10"), func() *discoveryv1.EndpointSlice {
			s := sliceOf("kube-dns", dns, addr)
			s.Ports[0].Port, s.Ports[1].Port = nil, nil
			return s
		}()}, nil, ""},
	} {
		c := known(tc.known...)
		found := findServers(c.services, c.endpoints)
		if got := found.addrs(); !slices.Equal(got, tc.addrs) {
			t.Errorf("%s: servers %v, expected %v", name, got, tc.addrs)
		}
		if got := found.service("udp", netip.MustParseAddrPort(addr+":5353")); got != tc.service {
			t.Errorf("%s: Service %q, expected %q", name, got, tc.service)
		}
	}
}

// Where a Service's address is never on the wire it is inferred; a translation tells more.
func TestInferredService(t *testing.T) {
	c := known(aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53), aSlice("a", true, serverIP.String()))
	c.servers = findServers(c.services, c.endpoints)
	for name, tc := range map[string]struct {
		server   netip.Addr
		port     uint16
		protocol string
		nat      *trace.NAT
		service  string
		inferred bool
	}{
		"the Service's address":                    {vip, 53, "udp", &trace.NAT{ServerIP: serverIP}, kubeDNS, false},
		"the pod's address":                        {serverIP, 53, "udp", nil, kubeDNS, true},
		"another port":                             {serverIP, 5353, "udp", nil, "", false},
		"another protocol":                         {serverIP, 53, "tcp", nil, "", false},
		"translated from an address of no Service": {netip.MustParseAddr("192.0.2.1"), 53, "udp", &trace.NAT{ServerIP: serverIP}, "", false},
		"a translated client":                      {serverIP, 53, "udp", &trace.NAT{ClientIP: podIP}, kubeDNS, true},
	} {
		ex := lookup(0)
		ex.ServerIP, ex.ServerPort, ex.Protocol, ex.NAT = tc.server, tc.port, tc.protocol, tc.nat
		c.Exchange(ex)
		got := trace.Endpoint{}
		if ex.Server != nil {
			got = *ex.Server
		}
		if got.Service != tc.service || got.ServiceInferred != tc.inferred {
			t.Errorf("%s: %q, inferred %v", name, got.Service, got.ServiceInferred)
		}
	}
}

// Servers are reported when they change, and only then.
func TestServersAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan []netip.AddrPort, 10)
		c := newCluster(Config{Node: node, Ports: []uint16{53}, Servers: func(s []netip.AddrPort) { reported <- s }}, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.findServers(ctx)
		}()
		change := func(f func()) {
			c.mu.Lock()
			f()
			c.mu.Unlock()
			c.outdate()
			synctest.Wait()
		}
		change(func() { c.services.set(aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53)) })
		if len(reported) != 0 {
			t.Error("reported nothing")
		}
		change(func() { c.endpoints.set(aSlice("a", true, serverIP.String()), start) })
		change(func() { c.endpoints.set(aSlice("a", false, serverIP.String()), start) })
		if got := <-reported; len(got) != 1 || got[0] != netip.AddrPortFrom(serverIP, 53) || len(reported) != 0 {
			t.Errorf("reported %v, and %d more", got, len(reported))
		}
		change(func() { c.endpoints.remove(keyOf(aSlice("a", true)), start) })
		if got := <-reported; len(got) != 0 {
			t.Errorf("reported %v", got)
		}
		cancel()
		<-ended
	})
}
