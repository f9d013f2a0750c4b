package kube

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of what is remembered of removed endpoints: an entry of connection tracking lives as
// long as a client sends.
const (
	rememberRemovedFor = 24 * time.Hour
	maxRemoved         = 4096
)

// endpoint is an address of a Service.
type endpoint struct {
	namespace, pod, node string // empty if it is no pod's
	ready                bool
	since                time.Time // when the tracer learned that it is not ready; zero: it always was so
}

// slice is an EndpointSlice.
type slice struct {
	service   string // namespace/name
	ports     []discoveryv1.EndpointPort
	endpoints map[netip.Addr]endpoint
}

// listing is an address of a Service that is removed, or was.
type listing struct {
	service string
	addr    netip.Addr
}

type removal struct {
	pod string // namespace/name
	at  time.Time
}

// endpoints are those of the Services that may speak DNS.
type endpoints struct {
	ports    []uint16
	slices   map[types.NamespacedName]*slice
	byAddr   map[netip.Addr][]*slice
	services map[string]*tally
	removed  map[listing]removal
	emptied  map[string]time.Time // when the last ready endpoint of a Service was lost
}

// tally counts what a Service has.
type tally struct{ slices, ready int }

func newEndpoints(ports []uint16) *endpoints {
	return &endpoints{
		ports: ports, slices: map[types.NamespacedName]*slice{}, byAddr: map[netip.Addr][]*slice{},
		services: map[string]*tally{}, removed: map[listing]removal{}, emptied: map[string]time.Time{},
	}
}

func (e *endpoints) addrs() int { return len(e.byAddr) }

// set adds a slice, or replaces what was known of it.
func (e *endpoints) set(o *discoveryv1.EndpointSlice, now time.Time) {
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
	n := e.newSlice(o)
	old := e.slices[key]
	if old != nil {
		e.unindex(old)
	}
	if n == nil {
		delete(e.slices, key)
	} else {
		e.slices[key] = n
		e.count(n)
		for a, ep := range n.endpoints {
			e.byAddr[a] = append(e.byAddr[a], n)
			delete(e.removed, listing{n.service, a})
			if before, was := old.find(a); was && !ep.ready {
				if ep.since = before.since; before.ready {
					ep.since = now
				}
				n.endpoints[a] = ep
			}
		}
	}
	if old != nil {
		e.gone(old, now)
	}
}

// count adds a slice to what its Service has.
func (e *endpoints) count(s *slice) {
	t := e.services[s.service]
	if t == nil {
		t = &tally{}
		e.services[s.service] = t
	}
	t.slices++
	t.ready += s.ready()
	if t.ready > 0 {
		delete(e.emptied, s.service)
	}
}

// ready counts its endpoints that are.
func (s *slice) ready() int {
	n := 0
	for _, ep := range s.endpoints {
		if ep.ready {
			n++
		}
	}
	return n
}

// strip leaves the name of a slice whose Service does not speak DNS.
func (e *endpoints) strip(o *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	if slices.ContainsFunc(o.Ports, e.speaksDNS) {
		return o
	}
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}}
}

// newSlice takes what records need from a slice of the API; nil if its Service
// does not speak DNS.
func (e *endpoints) newSlice(o *discoveryv1.EndpointSlice) *slice {
	service := o.Labels[discoveryv1.LabelServiceName]
	if service == "" || !slices.ContainsFunc(o.Ports, e.speaksDNS) {
		return nil
	}
	n := &slice{service: types.NamespacedName{Namespace: o.Namespace, Name: service}.String(), ports: slices.Clone(o.Ports), endpoints: map[netip.Addr]endpoint{}}
	for i := range o.Endpoints {
		from := &o.Endpoints[i]
		ep := endpoint{ready: from.Conditions.Ready == nil || *from.Conditions.Ready}
		if t := from.TargetRef; t != nil && t.Kind == "Pod" {
			ep.namespace, ep.pod = t.Namespace, t.Name
		}
		if from.NodeName != nil {
			ep.node = *from.NodeName
		}
		for _, text := range from.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				n.endpoints[a.Unmap()] = ep
			}
		}
	}
	return n
}

func (e *endpoints) speaksDNS(p discoveryv1.EndpointPort) bool {
	protocol, port := corev1.ProtocolTCP, int32(0)
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	if p.Port != nil {
		port = *p.Port
	}
	return speaksDNS(e.ports, protocol, port)
}

func (s *slice) find(a netip.Addr) (endpoint, bool) {
	if s == nil {
		return endpoint{}, false
	}
	ep, ok := s.endpoints[a]
	return ep, ok
}

// remove notes that a slice is gone.
func (e *endpoints) remove(key types.NamespacedName, now time.Time) {
	old := e.slices[key]
	if old == nil {
		return
	}
	delete(e.slices, key)
	e.unindex(old)
	e.gone(old, now)
}

func (e *endpoints) unindex(s *slice) {
	t := e.services[s.service]
	t.ready -= s.ready()
	if t.slices--; t.slices == 0 {
		delete(e.services, s.service)
	}
	for a := range s.endpoints {
		left := slices.DeleteFunc(e.byAddr[a], func(x *slice) bool { return x == s })
		if e.byAddr[a] = left; len(left) == 0 {
			delete(e.byAddr, a)
		}
	}
}

// gone remembers the endpoints of a former slice that no slice of its Service lists any more.
func (e *endpoints) gone(s *slice, now time.Time) {
	if t := e.services[s.service]; s.ready() > 0 && (t == nil || t.ready == 0) {
		if len(e.emptied) >= maxRemoved {
			clear(e.emptied)
		}
		e.emptied[s.service] = now
	}
	for a, ep := range s.endpoints {
		if slices.ContainsFunc(e.byAddr[a], func(x *slice) bool { return x.service == s.service }) {
			continue
		}
		if len(e.removed) >= maxRemoved {
			e.forget(now)
		}
		r := removal{at: now}
		if ep.pod != "" {
			r.pod = ep.namespace + "/" + ep.pod
		}
		e.removed[listing{s.service, a}] = r
	}
}

// forget makes room: it forgets removals that are old, or else the oldest.
func (e *endpoints) forget(now time.Time) {
	var oldest listing
	var at time.Time
	for l, r := range e.removed {
		if now.Sub(r.at) > rememberRemovedFor {
			delete(e.removed, l)
		} else if at.IsZero() || r.at.Before(at) {
			oldest, at = l, r.at
		}
	}
	if len(e.removed) >= maxRemoved {
		delete(e.removed, oldest)
	}
}

// state returns what the slices of a Service say of an address that a query went to; nil if
// no slices of the Service are known.
func (e *endpoints) state(service string, addr netip.Addr, query time.Time) *trace.ServiceEndpoint {
	addr = addr.Unmap()
	var found *endpoint
	for _, s := range e.byAddr[addr] {
		if s.service != service {
			continue
		}
		if ep := s.endpoints[addr]; found == nil || ep.ready {
			found = &ep
		}
	}
	if found != nil {
		return found.state(query)
	}
	if r, ok := e.removed[listing{service, addr}]; ok {
		return &trace.ServiceEndpoint{State: trace.EndpointRemoved, Pod: r.pod, Since: trace.SecondsPtr(r.at.Sub(query))}
	}
	if e.services[service] != nil {
		return &trace.ServiceEndpoint{State: trace.EndpointUnlisted}
	}
	return nil
}

func (ep *endpoint) state(query time.Time) *trace.ServiceEndpoint {
	s := &trace.ServiceEndpoint{State: trace.EndpointReady}
	if ep.pod != "" {
		s.Pod = ep.namespace + "/" + ep.pod
	}
	if !ep.ready {
		s.State = trace.EndpointNotReady
		if !ep.since.IsZero() {
			s.Since = trace.SecondsPtr(ep.since.Sub(query))
		}
	}
	return s
}

// none tells whether a Service had no ready endpoint when a query was sent. Its slices
// must all be known, as those of a Service with a UDP port are.
func (e *endpoints) none(service string, query time.Time) bool {
	t := e.services[service]
	return (t == nil || t.ready == 0) && !e.emptied[service].After(query)
}

// pod returns the pod that has an address, as the slices tell; empty if none does.
func (e *endpoints) pod(addr netip.Addr) (namespace, pod, node string) {
	for _, s := range e.byAddr[addr.Unmap()] {
		if ep := s.endpoints[addr.Unmap()]; ep.pod != "" {
			return ep.namespace, ep.pod, ep.node
		}
	}
	return "", "", ""
}
