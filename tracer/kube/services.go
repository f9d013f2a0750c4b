package kube

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// services are the Services that may speak DNS, by their addresses.
type services struct {
	ports  []uint16
	byKey  map[types.NamespacedName]service
	byAddr map[netip.Addr][]string // namespace/name
}

// service is what is kept of one.
type service struct {
	addrs []netip.Addr
	ports []corev1.ServicePort
}

func newServices(ports []uint16) *services {
	return &services{ports: ports, byKey: map[types.NamespacedName]service{}, byAddr: map[netip.Addr][]string{}}
}

// speaksDNS tells whether a port may be that of a DNS server. Few Services have a
// UDP port for anything else.
func speaksDNS(ports []uint16, protocol corev1.Protocol, port int32) bool {
	return protocol == corev1.ProtocolUDP || port > 0 && port <= 65535 && slices.Contains(ports, uint16(port))
}

func (s *services) speakDNS(o *corev1.Service) bool {
	return slices.ContainsFunc(o.Spec.Ports, func(p corev1.ServicePort) bool { return speaksDNS(s.ports, p.Protocol, p.Port) })
}

// strip leaves the name of a Service that does not speak DNS.
func (s *services) strip(o *corev1.Service) *corev1.Service {
	if s.speakDNS(o) {
		return o
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}}
}

func (s *services) set(o *corev1.Service) {
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
	s.remove(key)
	if !s.speakDNS(o) {
		return
	}
	addrs := serviceAddrs(o)
	s.byKey[key] = service{addrs, slices.Clone(o.Spec.Ports)}
	for _, a := range addrs {
		s.byAddr[a] = append(s.byAddr[a], key.String())
	}
}

func serviceAddrs(o *corev1.Service) []netip.Addr {
	texts := slices.Clone(o.Spec.ClusterIPs)
	if len(texts) == 0 {
		texts = append(texts, o.Spec.ClusterIP)
	}
	texts = append(texts, o.Spec.ExternalIPs...)
	for i := range o.Status.LoadBalancer.Ingress {
		texts = append(texts, o.Status.LoadBalancer.Ingress[i].IP)
	}
	var addrs []netip.Addr
	for _, text := range texts {
		// None, and what is empty, are no addresses.
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(addrs, a.Unmap()) {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

func (s *services) remove(key types.NamespacedName) {
	for _, a := range s.byKey[key].addrs {
		left := slices.DeleteFunc(s.byAddr[a], func(name string) bool { return name == key.String() })
		if s.byAddr[a] = left; len(left) == 0 {
			delete(s.byAddr, a)
		}
	}
	delete(s.byKey, key)
}

// name returns the Service that has an address, "" if none or several have.
func (s *services) name(addr netip.Addr) string {
	if names := s.byAddr[addr.Unmap()]; len(names) == 1 {
		return names[0]
	}
	return ""
}

// byName returns a Service, namespace/name; an empty one if it is not known.
func (s *services) byName(name string) *service {
	namespace, name, _ := strings.Cut(name, "/")
	svc := s.byKey[types.NamespacedName{Namespace: namespace, Name: name}]
	return &svc
}

// hasPort tells whether a Service, namespace/name, has that port, and all of its
// EndpointSlices are kept: they have its UDP port.
func (s *services) hasPort(name, protocol string, port uint16) bool {
	ports := s.byName(name).ports
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolUDP }) &&
		slices.ContainsFunc(ports, func(p corev1.ServicePort) bool {
			return strings.EqualFold(string(p.Protocol), protocol) && p.Port == int32(port)
		})
}
