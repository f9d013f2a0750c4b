//go:build kubernetes

package kubernetes

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// install does what deploy/README.md says, on a cluster as kubeadm makes it.
func (n *node) install() {
	began := time.Now()
	defer func() { n.t.Logf("installed, under load, within %s", time.Since(began).Round(time.Second)) }()
	n.kubectl("apply", "-f", n.manifest("cluster.yaml"))
	n.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.eventually("CoreDNS answers", time.Minute, func() error {
		_, err := n.exec("dig", "+time=1", "+tries=1", "@"+dnsIP, "www.example.org")
		return err
	})
	n.kubectl("apply", "-f", n.manifest("clients.yaml"))
	n.kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	n.startLoad(200, dnsServer, "install.example.org")
	deploy := filepath.Join(n.bin, "..", "deploy")
	n.kubectl("apply", "-k", filepath.Join(deploy, "base"))
	n.kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=120s")
	n.kubectl("-n", "kube-system", "patch", "deployment", "coredns", "--patch-file", filepath.Join(deploy, "coredns", "deployment-patch.yaml"))
	n.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.kubectl("apply", "-f", filepath.Join(deploy, "coredns", "corefile.yaml"))
	n.kubectl("-n", "kube-system", "rollout", "restart", "deployment/coredns")
	n.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.eventually("the old CoreDNS is gone", time.Minute, func() error {
		out, err := n.tryKubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "name")
		if err == nil && strings.Count(out, "\n") != 2 {
			err = errors.New(out)
		}
		return err
	})
	n.replaced("CoreDNS")
}

// replaced ends the load under which a server was rolled out, and judges what it met:
// kube-proxy forgets the connections of a pod that goes, and with them the way back of
// an answer that is under way: a resolver asks again. Where the machine is so busy that
// kube-proxy learns of a pod's end only after it, some meet nobody.
func (n *node) replaced(server string) {
	n.t.Helper()
	c := n.endLoad()
	if c.asked < 1000 || c.failed+c.answered != c.asked || c.failed > c.asked/1000 || c.retried > c.asked/100 {
		n.t.Errorf("while %s was replaced: %+v", server, c)
	}
	n.t.Logf("while %s was replaced: %+v", server, c)
}

// withMetrics adds the component metrics, as deploy/README.md says, which rolls the
// tracer out; then they are at the pod's address.
func (n *node) withMetrics() {
	deploy, err := filepath.Rel(n.dir, filepath.Join(n.bin, "..", "deploy"))
	if err != nil {
		n.t.Fatal(err)
	}
	write(n.t, filepath.Join(n.dir, "kustomization.yaml"), "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: ["+
		filepath.Join(deploy, "base")+"]\ncomponents: ["+filepath.Join(deploy, "metrics")+"]\n")
	n.kubectl("apply", "-k", n.dir)
	n.kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=120s")
	ip := strings.TrimSpace(n.kubectl("-n", "dnstrace", "get", "pod", n.pod("dnstrace", "app.kubernetes.io/name=dnstrace"), "-o=jsonpath={.status.podIP}"))
	n.eventually("metrics are at the pod's address", 30*time.Second, func() error {
		page, err := n.metrics("1", ip)
		if err == nil && !strings.Contains(page, "dnstrace_kubernetes_synced 1\n") {
			err = errors.New(page)
		}
		return err
	})
}

// removed takes all of it away again as deploy/README.md says; names are resolved as
// before.
func (n *node) removed() {
	n.kubectl("apply", "-f", n.manifest("cluster.yaml")) // its Corefile is without dnstrace
	n.kubectl("-n", "kube-system", "rollout", "restart", "deployment/coredns")
	n.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.kubectl("delete", "-k", filepath.Join(n.bin, "..", "deploy", "base"), "--timeout=120s")
	if out, err := n.tryKubectl("get", "namespace,clusterrole,clusterrolebinding", "-o", "name"); err != nil || strings.Contains(out, "/dnstrace") {
		n.t.Errorf("left: %v %s", err, out)
	}
	if left := n.running("dnstrace"); left != "" {
		n.t.Errorf("still running: %s", left)
	}
	if out := n.lookup(n.pod("demo", "app=web"), "removed.example.org."); !strings.Contains(out, "192.0.2.80") {
		n.t.Errorf("%s", out)
	}
}

// running are the processes of a name on the node, none or more.
func (n *node) running(name string) string {
	out, _ := n.exec("pgrep", "-x", name) // fails where there is none
	return strings.TrimSpace(out)
}

func (n *node) manifest(name string) string {
	path, err := filepath.Abs(filepath.Join("manifests", name))
	if err != nil {
		n.t.Fatal(err)
	}
	return path
}

// pod returns the name of the only pod of a label that runs.
func (n *node) pod(namespace, label string) string {
	n.t.Helper()
	var name string
	n.eventually("one pod of "+label, time.Minute, func() error {
		out, err := n.tryKubectl("-n", namespace, "get", "pods", "-l", label, "--field-selector=status.phase=Running",
			`-o=jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}`)
		if err != nil {
			return err
		}
		names := strings.Fields(out)
		if len(names) != 1 {
			return fmt.Errorf("there are %q", names)
		}
		name = names[0]
		return nil
	})
	return name
}

// lookup resolves a name in a container.
func (n *node) lookup(pod, name string) string {
	n.t.Helper()
	return n.kubectl("-n", "demo", "exec", pod, "--", "/pod", "lookup", name)
}

// lookupWithoutAPI resolves a name in the pod web as the kubelet would: by the
// container runtime.
func (n *node) lookupWithoutAPI(name string) {
	n.t.Helper()
	ctr := []string{"ctr", "-a", filepath.Join(n.dir, "containerd.sock"), "-n", "k8s.io"}
	id, err := n.exec(append(ctr, "containers", "ls", "-q", `labels."io.kubernetes.container.name"==app`)...)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.exec(append(ctr, "tasks", "exec", "--exec-id", strings.Trim(name, "."), strings.TrimSpace(id), "/pod", "lookup", name)...); err != nil {
		n.t.Fatal(err)
	}
}

// signal sends a signal to a component of the node.
func (n *node) signal(name, component string) {
	n.t.Helper()
	if _, err := n.exec("pkill", "-"+name, "-x", component); err != nil {
		n.t.Fatal(err)
	}
}

// counts are what became of the lookups of a load.
type counts struct{ asked, answered, retried, failed int }

// startLoad starts the pod load: so many lookups a second of names below another, by a
// server.
func (n *node) startLoad(rate int, server, below string) {
	n.t.Helper()
	n.kubectl("-n", "demo", "delete", "pod", "load", "--now", "--ignore-not-found")
	n.kubectl("-n", "demo", "run", "load", "--image=localhost/pod:latest", "--image-pull-policy=IfNotPresent", "--restart=Never",
		"--", "load", strconv.Itoa(rate), server, below)
	n.kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
}

// endLoad stops the pod load and returns what it counted.
func (n *node) endLoad() counts {
	n.t.Helper()
	// PID 1 of the container gets the signal and prints it.
	if _, err := n.exec("pkill", "-TERM", "-f", "^/pod load"); err != nil {
		n.t.Fatal(err)
	}
	var c counts
	n.eventually("the load has ended", time.Minute, func() error {
		out, err := n.tryKubectl("-n", "demo", "logs", "load")
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if _, err := fmt.Sscanf(lines[len(lines)-1], "asked %d answered %d retried %d failed %d", &c.asked, &c.answered, &c.retried, &c.failed); err != nil {
			return fmt.Errorf("%q: %w", lines[len(lines)-1], err)
		}
		n.t.Log(strings.Join(lines[max(0, len(lines)-20):], "\n"))
		return nil
	})
	return c
}
