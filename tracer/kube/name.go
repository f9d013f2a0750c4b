package kube

import (
	"net/netip"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// nameClient names who asked.
func (c *Cluster) nameClient(ex *trace.Exchange) {
	ex.Client = c.identify(ex.Client, ex.ClientIP, ex.Time)
}

// nameServer names who was asked, and whose Service's address was.
func (c *Cluster) nameServer(ex *trace.Exchange, reliable bool) {
	addr := ex.ServerIP
	translated := ex.NAT != nil && ex.NAT.ServerIP.IsValid()
	if translated {
		addr = ex.NAT.ServerIP
	}
	ex.Server = c.identify(ex.Server, addr, ex.Time)
	service, inferred := c.services.name(ex.ServerIP), false
	if service == "" && !translated {
		service = c.servers.service(ex.Protocol, netip.AddrPortFrom(addr.Unmap(), ex.ServerPort))
		inferred = service != ""
	}
	if service == "" {
		return
	}
	if ex.Server == nil {
		ex.Server = &trace.Endpoint{}
	}
	ex.Server.Service, ex.Server.ServiceInferred = service, inferred
	if inferred {
		return
	}
	switch {
	case !reliable:
		return
	case !translated:
		if c.services.hasPort(service, ex.Protocol, ex.ServerPort) && c.endpoints.none(service, ex.Time) {
			ex.Server.ServiceState = trace.ServiceNoEndpoints
		}
		return
	}
	if state := c.endpoints.state(service, addr, ex.Time); state != nil {
		// The exchange may be reported again, with the same translation.
		nat := *ex.NAT
		nat.Endpoint = state
		ex.NAT = &nat
	}
}

// identify names one end of an exchange: by its cgroup, which is proof, or by the address
// that it had at that time. e may be nil, and stays nil if nothing is known.
func (c *Cluster) identify(e *trace.Endpoint, addr netip.Addr, at time.Time) *trace.Endpoint {
	if e == nil || e.Cgroup == "" {
		if e = c.byAddress(e, addr, at); e != nil && e.PID != 0 {
			e.Node = c.cfg.Node
		}
		return e
	}
	e.Node = c.cfg.Node
	// Without a pod's UID it is a process of the node itself, whose address may be
	// that of many.
	if p := c.pods.byUID[podUID(e.Cgroup)]; p != nil {
		p.fill(e)
	}
	return e
}

// byAddress names the owner of an address: a pod of this node, or else an endpoint of a
// Service, on any node.
func (c *Cluster) byAddress(e *trace.Endpoint, addr netip.Addr, at time.Time) *trace.Endpoint {
	addr = addr.Unmap()
	if p := c.pods.at(addr, at); p != nil {
		if e == nil {
			e = &trace.Endpoint{}
		}
		p.fill(e)
		e.Node = c.cfg.Node
		return e
	}
	namespace, pod, node := c.endpoints.pod(addr)
	if pod == "" || node == c.cfg.Node {
		// A pod of this node that is not known by its address did not have it then.
		return e
	}
	if e == nil {
		e = &trace.Endpoint{}
	}
	e.Namespace, e.Pod, e.Node = namespace, pod, node
	return e
}

// fill puts what is known of a pod into an endpoint.
func (p *pod) fill(e *trace.Endpoint) {
	e.Pod, e.Namespace, e.Workload = p.name, p.namespace, p.workload
	if name := p.container(e.Container); name != "" {
		e.Container = name
	}
}

// container returns the name of a container of the pod by its id. The kubelet reports a
// container to the API server a second or so after its start, and the cgroup of a
// short-lived one may be unknown: if the pod has only one container, it is that.
func (p *pod) container(id string) string {
	for _, c := range p.containers {
		if c.id != "" && c.id == id {
			return c.name
		}
	}
	if len(p.containers) == 1 && (id == "" || len(id) == containerIDLength && p.containers[0].id == "") {
		return p.containers[0].name
	}
	return ""
}

// containerIDLength is the number of hexadecimal digits in a container's id.
const containerIDLength = 64

// podUID returns the UID of the pod that a cgroup is in, or "". The kubelet names
// a pod's cgroup after it (pkg/kubelet/cm/pod_container_manager_linux.go):
//
//	/kubepods/burstable/podUID/…                                  cgroupfs driver
//	/kubepods.slice/…/kubepods-burstable-podUID.slice/…           systemd driver, - as _
//	/system.slice/kubepods-burstable-podUID.slice:cri-containerd:ID
//
// The UID of a static pod is a hash without hyphens. Of pods inside another, as in
// a node that is a pod, the innermost counts.
func podUID(path string) string {
	for path != "" {
		cut := strings.LastIndexByte(path, '/')
		name := path[cut+1:]
		name, _, _ = strings.Cut(name, ":")
		name = strings.TrimSuffix(name, ".slice")
		if i := strings.LastIndex(name, "pod"); i >= 0 && (i == 0 || strings.HasPrefix(name, "kube") && name[i-1] == '-') {
			if uid := strings.ReplaceAll(name[i+len("pod"):], "_", "-"); isUID(uid) {
				return uid
			}
		}
		path = path[:max(cut, 0)]
	}
	return ""
}

func isUID(s string) bool {
	const uuid, hash = 36, 32
	return (len(s) == uuid || len(s) == hash) && strings.Trim(s, "0123456789abcdef-") == ""
}
