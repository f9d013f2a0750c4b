package kube

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dnstrace/dnstrace/trace"
)

func TestPodUID(t *testing.T) {
	underscored, hash := strings.ReplaceAll(uid, "-", "_"), strings.Repeat("0f", 16)
	for _, tc := range []struct{ name, path, want string }{
		{"cgroupfs", "/kubepods/besteffort/pod" + uid + "/" + containerID, uid},
		{"cgroupfs, guaranteed", "/kubepods/pod" + uid, uid},
		{"systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + underscored + ".slice/cri-containerd-" + containerID + ".scope", uid},
		{"systemd's names for cgroupfs", "/system.slice/kubepods-besteffort-pod" + underscored + ".slice:cri-containerd:" + containerID, uid},
		{"cgroup root of the kubelet", "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + underscored + ".slice/x", uid},
		{"static pod", "/kubepods/burstable/pod" + hash + "/" + containerID, hash},
		{"below the container", "/kubepods/pod" + uid + "/" + containerID + "/init.scope", uid},
		{"a pod in a pod", "/kubepods/pod" + otherUID + "/" + containerID + "/kubelet/kubepods/pod" + uid + "/x", uid},
		{"docker", "/docker/" + containerID, ""},
		{"podman", "/machine.slice/libpod-" + containerID + ".scope", ""},
		{"a service of that name", "/system.slice/podman.service", ""},
		{"not an id", "/kubepods/podcast", ""},
		{"root", "/", ""},
		{"nothing", "", ""},
	} {
		if got := podUID(tc.path); got != tc.want {
			t.Errorf("%s: %s: got %q, expected %q", tc.name, tc.path, got, tc.want)
		}
	}
}

func TestWorkload(t *testing.T) {
	yes := true
	owned := func(kind, name string, controller *bool) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"pod-template-hash": "6d4c"},
			OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: name, Controller: controller}}}}
	}
	for _, tc := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{owned("ReplicaSet", "web-6d4c", &yes), "Deployment/web"},
		{owned("ReplicaSet", "web-1", &yes), "ReplicaSet/web-1"}, // of nobody's
		{owned("DaemonSet", "dns", &yes), "DaemonSet/dns"},
		{owned("StatefulSet", "db", &yes), "StatefulSet/db"},
		{owned("Job", "nightly-29384756", &yes), "Job/nightly-29384756"},
		{owned("Node", "node1", &yes), ""},
		{owned("ReplicaSet", "web-6d4c", nil), ""},
		{&corev1.Pod{}, ""},
	} {
		if got := workload(tc.pod); got != tc.want {
			t.Errorf("%+v: got %q, expected %q", tc.pod.OwnerReferences, got, tc.want)
		}
	}
}

// Both ends of a lookup through a Service, known in different ways.
func TestExchange(t *testing.T) {
	service, slice := aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53), aSlice("a", true, serverIP.String())
	host := aPod("host", uid, "192.168.49.2")
	host.Spec.HostNetwork = true
	static := aPod("static", otherUID, "")
	static.Annotations = map[string]string{staticHash: strings.Repeat("0f", 16)}
	early := aPod("early", uid, "")
	early.Status = corev1.PodStatus{}
	otherNode := &trace.Endpoint{Namespace: "kube-system", Pod: "coredns-10.244.0.2", Node: "node2", Service: "kube-system/kube-dns"}
	for _, tc := range []struct {
		name           string
		objects        []any
		from           netip.Addr
		client         *trace.Endpoint // as seen on the wire
		wantC, wantSrv *trace.Endpoint
	}{
		{"nothing known", nil, podIP, nil, nil, nil},
		{"by address, server by its slice", []any{aPod("web-1", uid, podIP.String()), service, slice}, podIP, nil,
			&trace.Endpoint{Pod: "web-1", Namespace: "demo", Node: node, Container: "app", Workload: "Deployment/web"}, otherNode},
		{"by cgroup, whatever the address", []any{aPod("web-1", uid, "10.244.0.99"), aPod("web-2", otherUID, podIP.String())}, podIP,
			&trace.Endpoint{Cgroup: cgroupOf(uid), Container: containerID, PID: 5},
			&trace.Endpoint{Cgroup: cgroupOf(uid), Container: "app", PID: 5, Pod: "web-1", Namespace: "demo", Node: node, Workload: "Deployment/web"}, nil},
		{"shares the node's network", []any{host}, netip.MustParseAddr("192.168.49.2"), &trace.Endpoint{Cgroup: cgroupOf(uid), Container: containerID},
			&trace.Endpoint{Cgroup: cgroupOf(uid), Container: "app", Pod: "host", Namespace: "demo", Node: node, Workload: "Deployment/web"}, nil},
		{"the node's address is no pod's", []any{host}, netip.MustParseAddr("192.168.49.2"), nil, nil, nil},
		{"a process of the node", []any{aPod("web-1", uid, podIP.String())}, podIP, &trace.Endpoint{Cgroup: "/system.slice/kubelet.service", PID: 9},
			&trace.Endpoint{Cgroup: "/system.slice/kubelet.service", PID: 9, Node: node}, nil},
		{"a pod that the API server has not reported", []any{aPod("web-1", uid, podIP.String())}, podIP, &trace.Endpoint{Cgroup: cgroupOf(otherUID), Container: containerID},
			&trace.Endpoint{Cgroup: cgroupOf(otherUID), Container: containerID, Node: node}, nil},
		{"before the kubelet reported the container", []any{early}, podIP, &trace.Endpoint{Cgroup: cgroupOf(uid), Container: containerID},
			&trace.Endpoint{Cgroup: cgroupOf(uid), Container: "app", Pod: "early", Namespace: "demo", Node: node, Workload: "Deployment/web"}, nil},
		{"static pod", []any{static}, podIP, &trace.Endpoint{Cgroup: cgroupOf(strings.Repeat("0f", 16))},
			&trace.Endpoint{Cgroup: cgroupOf(strings.Repeat("0f", 16)), Container: "app", Pod: "static", Namespace: "demo", Node: node, Workload: "Deployment/web"}, nil},
		{"only the Service", []any{service}, podIP, nil, nil, &trace.Endpoint{Service: "kube-system/kube-dns"}},
	} {
		ex := lookup(time.Minute)
		ex.ClientIP, ex.Client = tc.from, tc.client
		known(tc.objects...).Exchange(ex)
		if !same(ex.Client, tc.wantC) {
			t.Errorf("%s: client %+v, expected %+v", tc.name, ex.Client, tc.wantC)
		}
		if !same(ex.Server, tc.wantSrv) {
			t.Errorf("%s: server %+v, expected %+v", tc.name, ex.Server, tc.wantSrv)
		}
	}
}

func same(a, b *trace.Endpoint) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// The record of a server that no packets were seen of.
func TestTraceWithoutExchange(t *testing.T) {
	q := &trace.Query{ServerIP: serverIP}
	q.ClientIP, q.Time = podIP, start.Add(time.Minute)
	tr := &trace.Trace{Query: q}
	known(aPod("web-1", uid, podIP.String()), aPod("dns-1", otherUID, serverIP.String())).Trace(tr)
	if tr.Client == nil || tr.Client.Pod != "web-1" || tr.Server == nil || tr.Server.Pod != "dns-1" {
		t.Errorf("client %+v, server %+v", tr.Client, tr.Server)
	}
}

// A container is named by its id where a pod has several.
func TestContainer(t *testing.T) {
	o := aPod("web-1", uid, "")
	o.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
	o.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", ContainerID: "cri-o://" + strings.Repeat("cd", 32)}}
	p := newPod(o, start)
	for id, want := range map[string]string{containerID: "app", strings.Repeat("cd", 32): "migrate", strings.Repeat("ef", 32): "", "": ""} {
		if got := p.container(id); got != want {
			t.Errorf("%s: got %q, expected %q", id, got, want)
		}
	}
}

// The maker of a cgroup chooses its name: what is taken for a UID is of one part of the
// path, and looks like one.
func FuzzPodUID(f *testing.F) {
	for _, path := range []string{"", "/", "//pod", "/kubepods/pod" + uid, "/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice:cri-containerd:x",
		"/pod" + strings.Repeat("-", 36), "/kubepods/pod" + uid + "/../pod" + otherUID} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if got := podUID(path); got != "" && (!isUID(got) || !strings.Contains(strings.ReplaceAll(path, "_", "-"), got)) {
			t.Errorf("%q: %q", path, got)
		}
	})
}
