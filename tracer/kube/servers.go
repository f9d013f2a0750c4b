package kube

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// servers are the addresses to which Services lead from the ports of DNS servers. With
// socket load balancing packets have only these addresses and ports, and not the Service's.
type servers map[server][]string

// server is a protocol of an endpoint: udp, tcp.
type server struct {
	protocol string
	addr     netip.AddrPort
}

// ambiguous stands for a headless Service, whose clients ask its endpoints: a client of an
// endpoint may have used it.
const ambiguous = ""

// service returns the Service, namespace/name, that alone leads to a server; "" if none
// does, or several do.
func (s servers) service(protocol string, addr netip.AddrPort) string {
	if names := s[server{protocol, addr}]; len(names) == 1 {
		return names[0]
	}
	return ""
}

// outdate says that services or endpoints have changed.
func (c *Cluster) outdate() {
	select {
	case c.stale <- struct{}{}:
	default: // it was said before
	}
}

// findServers finds the servers anew when something has changed, until ctx ends.
func (c *Cluster) findServers(ctx context.Context) {
	var reported []netip.AddrPort
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.stale:
		}
		c.mu.Lock()
		c.servers = findServers(c.services, c.endpoints)
		addrs := c.servers.addrs()
		c.mu.Unlock()
		if c.cfg.Servers != nil && !slices.Equal(addrs, reported) {
			c.cfg.Servers(addrs)
			reported = addrs
		}
	}
}

// addrs returns each address and port once, in order.
func (s servers) addrs() []netip.AddrPort {
	all := make(map[netip.AddrPort]struct{}, len(s))
	for at := range s {
		all[at.addr] = struct{}{}
	}
	return slices.SortedFunc(maps.Keys(all), netip.AddrPort.Compare)
}

func findServers(from *services, to *endpoints) servers {
	found := servers{}
	for _, s := range to.slices {
		svc := from.byName(s.service)
		for i := range s.ports {
			p := &s.ports[i]
			if p.Port == nil || *p.Port <= 0 || *p.Port > 65535 || !svc.leadsTo(from.ports, p) {
				continue
			}
			name := s.service
			if len(svc.addrs) == 0 {
				name = ambiguous
			}
			for a := range s.endpoints {
				at := server{strings.ToLower(string(protocolOf(p))), netip.AddrPortFrom(a, uint16(*p.Port))}
				if !slices.Contains(found[at], name) {
					found[at] = append(found[at], name)
				}
			}
		}
	}
	return found
}

// leadsTo tells whether one of the ports of DNS servers leads to a port of an endpoint.
func (s *service) leadsTo(ports []uint16, p *discoveryv1.EndpointPort) bool {
	name := ""
	if p.Name != nil {
		name = *p.Name
	}
	return slices.ContainsFunc(s.ports, func(q corev1.ServicePort) bool {
		protocol := q.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		return q.Name == name && protocol == protocolOf(p) && q.Port > 0 && q.Port <= 65535 && slices.Contains(ports, uint16(q.Port))
	})
}

func protocolOf(p *discoveryv1.EndpointPort) corev1.Protocol {
	if p.Protocol == nil {
		return corev1.ProtocolTCP
	}
	return *p.Protocol
}
