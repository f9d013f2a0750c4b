package kube

import (
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dnstrace/dnstrace/trace"
)

const (
	node     = "node1"
	uid      = "d5a4b0b8-2d7e-4a1b-9d0c-3c1f0f4a2b11"
	otherUID = "11111111-2d7e-4a1b-9d0c-3c1f0f4a2b11"
)

var (
	start       = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	containerID = strings.Repeat("ab", 32)
	vip         = netip.MustParseAddr("10.96.0.10")
	podIP       = netip.MustParseAddr("10.244.0.7")
	serverIP    = netip.MustParseAddr("10.244.0.2")
)

// aPod is a pod of a Deployment, as the API has it once it runs.
func aPod(name, uid, addr string) *corev1.Pod {
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "demo", Name: name, UID: types.UID(uid), Labels: map[string]string{"pod-template-hash": "6d4cf56db6"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-6d4cf56db6", Controller: &yes}},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: start},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", ContainerID: "containerd://" + containerID}},
		},
	}
	if addr != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: addr}}
	}
	return p
}

func aService(name, addr string, protocol corev1.Protocol, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: addr, ClusterIPs: []string{addr}, Ports: []corev1.ServicePort{{Protocol: protocol, Port: port}}},
	}
}

// aSlice has endpoints that are pods named after their addresses, on another node.
func aSlice(name string, ready bool, addrs ...string) *discoveryv1.EndpointSlice {
	udp, port, otherNode := corev1.ProtocolUDP, int32(53), "node2"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "kube-dns"}},
		Ports:      []discoveryv1.EndpointPort{{Protocol: &udp, Port: &port}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &otherNode,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "kube-system", Name: "coredns-" + a},
		})
	}
	return s
}

// known is a Cluster that got these objects at start.
func known(objects ...any) *Cluster {
	c := newCluster(Config{Node: node, Ports: []uint16{53}}, func() time.Time { return start })
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Pod:
			c.pods.set(o, start)
		case *corev1.Service:
			c.services.set(o)
		case *discoveryv1.EndpointSlice:
			c.endpoints.set(o, start)
		}
	}
	return c
}

// lookup is a record of a query through the Service, some time after start.
func lookup(after time.Duration) *trace.Exchange {
	ex := &trace.Exchange{ServerIP: vip, ServerPort: 53, NAT: &trace.NAT{ServerIP: serverIP}}
	ex.ClientIP, ex.Time = podIP, start.Add(after)
	return ex
}

func cgroupOf(uid string) string { return "/kubepods/burstable/pod" + uid + "/" + containerID }
