package kube

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Bounds of what is remembered of deleted pods: a lookup is reported up to twice its timeout
// after it began, and traces wait for their parts.
const (
	rememberFor = 10 * time.Minute
	maxGone     = 4096 // a node with seven pods a second, for ten minutes
)

// staticHash is the annotation with the UID that the kubelet itself knows a static
// pod by; the pod in the API is a mirror with a UID of its own.
const staticHash = "kubernetes.io/config.hash"

// pod is what records need of a pod.
type pod struct {
	key                       types.NamespacedName
	uid, mirrored             string
	name, namespace, workload string
	addrs                     []netip.Addr // none if it shares the node's
	containers                []container
	from                      time.Time // it had no address before
	until                     time.Time // it has none from then on; zero: it still has
}

type container struct{ name, id string }

// pods are those of this node, and those that were until lately.
type pods struct {
	live   map[types.NamespacedName]*pod
	byUID  map[string]*pod
	byAddr map[netip.Addr][]*pod // in the order in which they became known
	gone   []gonePod             // oldest first
}

type gonePod struct {
	pod *pod
	at  time.Time
}

func newPods() *pods {
	return &pods{live: map[types.NamespacedName]*pod{}, byUID: map[string]*pod{}, byAddr: map[netip.Addr][]*pod{}}
}

func (p *pods) count() int { return len(p.live) }

// newPod takes what records need from a pod of the API.
func newPod(o *corev1.Pod, now time.Time) *pod {
	p := &pod{
		key: types.NamespacedName{Namespace: o.Namespace, Name: o.Name}, uid: string(o.UID), mirrored: o.Annotations[staticHash],
		name: o.Name, namespace: o.Namespace, workload: workload(o), from: o.CreationTimestamp.Time,
	}
	if o.Status.StartTime != nil {
		p.from = o.Status.StartTime.Time
	}
	if !o.Spec.HostNetwork {
		for _, ip := range o.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				p.addrs = append(p.addrs, a.Unmap())
			}
		}
	}
	p.containers = containers(o)
	if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		// It stays in the API with an address that others may have by now.
		p.until = ended(o, now)
	}
	return p
}

func containers(o *corev1.Pod) []container {
	var list []container
	ids := map[string]string{}
	for _, statuses := range [][]corev1.ContainerStatus{o.Status.InitContainerStatuses, o.Status.ContainerStatuses, o.Status.EphemeralContainerStatuses} {
		for i := range statuses {
			// containerd://ID
			_, ids[statuses[i].Name], _ = strings.Cut(statuses[i].ContainerID, "://")
		}
	}
	add := func(name string) { list = append(list, container{name, ids[name]}) }
	for i := range o.Spec.InitContainers {
		add(o.Spec.InitContainers[i].Name)
	}
	for i := range o.Spec.Containers {
		add(o.Spec.Containers[i].Name)
	}
	for i := range o.Spec.EphemeralContainers {
		add(o.Spec.EphemeralContainers[i].Name)
	}
	return list
}

// ended returns when the last container of a pod ended. The API has whole seconds,
// rounded down.
func ended(o *corev1.Pod, now time.Time) time.Time {
	var last time.Time
	for i := range o.Status.ContainerStatuses {
		if t := o.Status.ContainerStatuses[i].State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	if last.IsZero() {
		return now
	}
	return last.Add(time.Second)
}

// workload returns the workload of a pod: its owner, or the Deployment if the owner is a
// ReplicaSet of one, which is named after the Deployment and the pods' hash.
func workload(o *corev1.Pod) string {
	for _, owner := range o.OwnerReferences {
		if owner.Controller == nil || !*owner.Controller {
			continue
		}
		if owner.Kind == "ReplicaSet" {
			hash := o.Labels["pod-template-hash"]
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && hash != "" {
				return "Deployment/" + name
			}
		}
		// A static pod is owned by its node, which is no workload.
		if owner.Kind != "Node" {
			return owner.Kind + "/" + owner.Name
		}
	}
	return ""
}

// set adds a pod, or replaces what was known of it.
func (p *pods) set(o *corev1.Pod, now time.Time) {
	n := newPod(o, now)
	if old := p.live[n.key]; old != nil {
		if old.uid != n.uid {
			p.remove(n.key, now) // deleted and recreated, as with a StatefulSet
		} else {
			if !old.until.IsZero() {
				n.until = old.until
			}
			p.unindex(old)
		}
	}
	p.live[n.key] = n
	p.byUID[n.uid] = n
	if n.mirrored != "" {
		p.byUID[n.mirrored] = n
	}
	for _, a := range n.addrs {
		p.byAddr[a] = append(p.byAddr[a], n)
	}
	p.expire(now)
}

// remove notes that a pod is gone. Its name stays for a while.
func (p *pods) remove(key types.NamespacedName, now time.Time) {
	o := p.live[key]
	if o == nil {
		return
	}
	delete(p.live, key)
	if o.until.IsZero() {
		o.until = now
	}
	p.gone = append(p.gone, gonePod{o, now})
	p.expire(now)
}

// expire forgets pods that are gone for long, or too many.
func (p *pods) expire(now time.Time) {
	n := 0
	for n < len(p.gone) && (now.Sub(p.gone[n].at) > rememberFor || len(p.gone)-n > maxGone) {
		p.unindex(p.gone[n].pod)
		n++
	}
	p.gone = slices.Delete(p.gone, 0, n)
}

func (p *pods) unindex(o *pod) {
	for _, uid := range []string{o.uid, o.mirrored} {
		if p.byUID[uid] == o {
			delete(p.byUID, uid)
		}
	}
	for _, a := range o.addrs {
		left := slices.DeleteFunc(p.byAddr[a], func(x *pod) bool { return x == o })
		if p.byAddr[a] = left; len(left) == 0 {
			delete(p.byAddr, a)
		}
	}
}

// at returns the pod that had an address at a time, nil if none is known to.
func (p *pods) at(addr netip.Addr, at time.Time) *pod {
	var found *pod
	for _, o := range p.byAddr[addr] {
		if o.from.After(at) || !o.until.IsZero() && !at.Before(o.until) {
			continue
		}
		if found == nil || !o.from.Before(found.from) {
			found = o
		}
	}
	return found
}
