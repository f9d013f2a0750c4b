//go:build kubernetes

package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/kubernetes/kubenode"
)

// install does what deploy/README.md says, on a cluster as kubeadm makes it.
func (n *node) install() {
	began := time.Now()
	defer func() { n.t.Logf("installed, under load, within %s", time.Since(began).Round(time.Second)) }()
	n.Kubectl("apply", "-f", n.manifest("cluster.yaml"))
	n.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.Eventually("CoreDNS answers", time.Minute, func() error {
		_, err := n.Exec("dig", "+time=1", "+tries=1", "@"+kubenode.DNS, "www.example.org")
		return err
	})
	n.Kubectl("apply", "-f", n.manifest("clients.yaml"))
	n.Kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	n.startLoad(200, dnsServer, "install.example.org")
	deploy := filepath.Join(n.Bin, "..", "deploy")
	n.Kubectl("apply", "-k", filepath.Join(deploy, "base"))
	n.Kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=120s")
	n.Kubectl("-n", "kube-system", "patch", "deployment", "coredns", "--patch-file", filepath.Join(deploy, "coredns", "deployment-patch.yaml"))
	n.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.Kubectl("apply", "-f", filepath.Join(deploy, "coredns", "corefile.yaml"))
	n.Kubectl("-n", "kube-system", "rollout", "restart", "deployment/coredns")
	n.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.Eventually("the old CoreDNS is gone", time.Minute, func() error {
		out, err := n.TryKubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "name")
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

// tightened adds the components metrics and seccomp, and names the image by its digest,
// as deploy/README.md says, which rolls the tracer out; then its metrics are at the pod's
// address.
func (n *node) tightened() {
	deploy, err := filepath.Rel(n.Dir, filepath.Join(n.Bin, "..", "deploy"))
	if err != nil {
		n.t.Fatal(err)
	}
	profile, err := os.ReadFile(filepath.Join(n.Bin, "..", "deploy", "seccomp", "dnstrace.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	digest, err := os.ReadFile(filepath.Join(n.Bin, "images", "dnstrace.digest"))
	if err != nil {
		n.t.Fatal(err)
	}
	profiles := filepath.Join(n.Dir, "kubelet", "seccomp")
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		n.t.Fatal(err)
	}
	kubenode.Write(n.t, filepath.Join(profiles, "dnstrace.json"), string(profile))
	image := "localhost/dnstrace@" + strings.TrimSpace(string(digest))
	kubenode.Write(n.t, filepath.Join(n.Dir, "kustomization.yaml"), "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: ["+
		filepath.Join(deploy, "base")+"]\ncomponents: ["+filepath.Join(deploy, "metrics")+", "+filepath.Join(deploy, "seccomp")+"]\n"+
		"images: [{name: localhost/dnstrace, digest: \""+strings.TrimSpace(string(digest))+"\"}]\n")
	n.Kubectl("apply", "-k", n.Dir)
	n.Kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=120s")
	pod := n.Pod("dnstrace", "app.kubernetes.io/name=dnstrace")
	out := n.Kubectl("-n", "dnstrace", "get", "pod", pod, "-o=jsonpath={.spec.containers[0].image} {.spec.containers[0].securityContext.seccompProfile.type} {.status.podIP}")
	fields := strings.Fields(out)
	if len(fields) != 3 || fields[0] != image || fields[1] != "Localhost" {
		n.t.Fatalf("%s, expected %s", out, image)
	}
	if out := n.Kubectl("-n", "dnstrace", "exec", pod, "--", "/dnstrace", "check"); strings.Contains(out, "not permitted") {
		n.t.Errorf("under its profile:\n%s", out)
	}
	n.Eventually("metrics are at the pod's address", 30*time.Second, func() error {
		page, err := n.metrics("1", fields[2])
		if err == nil && !strings.Contains(page, "dnstrace_kubernetes_synced 1\n") {
			err = errors.New(page)
		}
		return err
	})
}

// removed takes all of it away again as deploy/README.md says; names are resolved as
// before.
func (n *node) removed() {
	n.Kubectl("apply", "-f", n.manifest("cluster.yaml")) // its Corefile is without dnstrace
	n.Kubectl("-n", "kube-system", "rollout", "restart", "deployment/coredns")
	n.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.Kubectl("delete", "-k", filepath.Join(n.Bin, "..", "deploy", "base"), "--timeout=120s")
	if out, err := n.TryKubectl("get", "namespace,clusterrole,clusterrolebinding", "-o", "name"); err != nil || strings.Contains(out, "/dnstrace") {
		n.t.Errorf("left: %v %s", err, out)
	}
	if left := n.running("dnstrace"); left != "" {
		n.t.Errorf("still running: %s", left)
	}
	if out := n.lookup(n.Pod("demo", "app=web"), "removed.example.org."); !strings.Contains(out, "192.0.2.80") {
		n.t.Errorf("%s", out)
	}
}

// running are the processes of a name on the node, none or more.
func (n *node) running(name string) string {
	out, _ := n.Exec("pgrep", "-x", name) // fails where there is none
	return strings.TrimSpace(out)
}

func (n *node) manifest(name string) string {
	path, err := filepath.Abs(filepath.Join("manifests", name))
	if err != nil {
		n.t.Fatal(err)
	}
	return path
}

// lookup resolves a name in a container.
func (n *node) lookup(pod, name string) string {
	n.t.Helper()
	return n.Kubectl("-n", "demo", "exec", pod, "--", "/pod", "lookup", name)
}

// lookupWithoutAPI resolves a name in the pod web as the kubelet would: by the
// container runtime.
func (n *node) lookupWithoutAPI(name string) {
	n.t.Helper()
	ctr := []string{"ctr", "-a", filepath.Join(n.Dir, "containerd.sock"), "-n", "k8s.io"}
	id, err := n.Exec(append(ctr, "containers", "ls", "-q", `labels."io.kubernetes.container.name"==app`)...)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.Exec(append(ctr, "tasks", "exec", "--exec-id", strings.Trim(name, "."), strings.TrimSpace(id), "/pod", "lookup", name)...); err != nil {
		n.t.Fatal(err)
	}
}

// signal sends a signal to a component of the node.
func (n *node) signal(name, component string) {
	n.t.Helper()
	if _, err := n.Exec("pkill", "-"+name, "-x", component); err != nil {
		n.t.Fatal(err)
	}
}

// counts are what became of the lookups of a load.
type counts struct{ asked, answered, retried, failed int }

// startLoad starts the pod load: so many lookups a second of names below another, by a
// server.
func (n *node) startLoad(rate int, server, below string) {
	n.t.Helper()
	n.Kubectl("-n", "demo", "delete", "pod", "load", "--now", "--ignore-not-found")
	n.Kubectl("-n", "demo", "run", "load", "--image=localhost/pod:latest", "--image-pull-policy=IfNotPresent", "--restart=Never",
		"--", "load", strconv.Itoa(rate), server, below)
	n.Kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
}

// endLoad stops the pod load and returns what it counted.
func (n *node) endLoad() counts {
	n.t.Helper()
	// PID 1 of the container gets the signal and prints it.
	if _, err := n.Exec("pkill", "-TERM", "-f", "^/pod load"); err != nil {
		n.t.Fatal(err)
	}
	var c counts
	n.Eventually("the load has ended", time.Minute, func() error {
		out, err := n.TryKubectl("-n", "demo", "logs", "load")
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
