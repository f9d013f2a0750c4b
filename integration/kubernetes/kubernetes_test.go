//go:build kubernetes

package kubernetes

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// tokenFile is where Kubernetes mounts the token of a pod's account, in its root.
const tokenFile = "var/run/secrets/kubernetes.io/serviceaccount/token"

// A cluster as kubeadm makes it, with dnstrace installed as deploy/README.md says, in
// both modes of kube-proxy: what it tells of lookups, and that it harms none.
func TestKubernetes(t *testing.T) {
	for _, mode := range []string{"iptables", "nftables"} {
		t.Run(mode, func(t *testing.T) {
			n := startNode(t, mode)
			n.install()
			n.checked()
			n.notRoot("kube-dns")
			n.takenOver()
			n.startServers()
			n.startLoad(200, dnsServer, "load.example.org")
			n.servicesAndNames()
			n.hostNetwork()
			n.shortLived()
			n.dropped(mode)
			n.withoutEndpoints()
			n.staleEndpoint()
			n.apiServerGone()
			n.killed()
			n.tightened()
			n.harmed()
			n.nodeLocal()
			n.removed()
		})
	}
}

// checked: nothing is missing for the tracer in its pod.
func (n *node) checked() {
	out := n.Kubectl("-n", "dnstrace", "exec", "daemonset/dnstrace", "--", "/dnstrace", "check")
	if strings.Contains(out, "MISSING") || !strings.Contains(out, "tells of the pods of node node1") {
		n.t.Errorf("%s", out)
	}
	n.t.Logf("dnstrace check\n%s", out)
	if out := n.Kubectl("-n", "dnstrace", "exec", "daemonset/dnstrace", "--", "/dnstrace", "top", "--once"); !strings.Contains(out, "lookups") {
		n.t.Errorf("top says %s", out)
	}
	// The tracer that runs has no privilege left, and can read a token that is renewed.
	pid := n.processes("dnstrace")[0]
	status, err := n.Exec("grep", "-E", "^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)", "/proc/"+pid+"/status")
	if err != nil || strings.Count(status, "0000000000000000") != 4 || !strings.Contains(status, "NoNewPrivs:\t1") {
		n.t.Errorf("%v %s", err, status)
	}
	if out, err := n.Exec("stat", "-L", "-c", "%u", filepath.Join("/proc", pid, "root", tokenFile)); err != nil || strings.TrimSpace(out) != "0" {
		n.t.Errorf("the token is not root's: %v %s", err, out)
	}
	// Nobody beyond the pod can reach it.
	if out, err := n.Exec("nsenter", "-t", pid, "-n", "ss", "-H", "-l", "-n", "-t", "-u", "-w", "-0"); err != nil || !strings.Contains(out, " 127.0.0.1:9464 ") || strings.Count(out, "\n") != 1 {
		n.t.Errorf("%v; the tracer's pod listens on\n%s", err, out)
	}
	// Its account reads names, and nothing else. The command fails where it says no.
	for request, want := range map[string]string{
		"list pods": "yes", "watch services": "yes", "list endpointslices.discovery.k8s.io": "yes",
		"list secrets": "no", "get configmaps": "no", "delete pods": "no", "create pods/exec": "no", "get nodes": "no",
		"impersonate users": "no", "create serviceaccounts/token": "no", "patch services": "no",
	} {
		args := append([]string{"auth", "can-i", "--all-namespaces", "--as=system:serviceaccount:dnstrace:dnstrace"}, strings.Fields(request)...)
		if out, err := n.TryKubectl(args...); strings.TrimSpace(out) != want {
			n.t.Errorf("%s: %q, expected %s (%v)", request, out, want, err)
		}
	}
}

// servicesAndNames looks up a Service's name, a name outside, and one that is not.
func (n *node) servicesAndNames() {
	web := n.Pod("demo", "app=web")
	for _, tc := range []struct {
		pattern, rcode, answeredBy string
		upstreams                  int
	}{
		{"kubernetes.default.svc.cluster.local.", "NOERROR", "kubernetes", 0},
		{"www*.example.org.", "NOERROR", "forward", 1},
		{"missing*.example.net.", "NXDOMAIN", "forward", 1},
	} {
		tr := n.traced(tc.pattern, func(name string) { n.lookup(web, name) }, func(tr *trace.Trace) error {
			if err := ends(tr, web, "Deployment/web"); err != nil {
				return err
			}
			return whole(tr, tc.rcode)
		})
		again := tr.Query.AnsweredBy == "cache" && !strings.Contains(tc.pattern, "*")
		if tr.Query.AnsweredBy != tc.answeredBy && !again || len(tr.Upstreams) != tc.upstreams || len(tr.Diagnosis) != 0 {
			n.t.Errorf("%s: answered by %s, %d upstreams, findings %v", tc.pattern, tr.Query.AnsweredBy, len(tr.Upstreams), codes(tr))
		}
		for _, u := range tr.Upstreams {
			if u.Join != trace.JoinExact || u.Exchange == nil || u.Exchange.Client == nil || u.Exchange.Client.Pod != tr.Server.Pod {
				n.t.Errorf("%s: upstream %+v", tc.pattern, u)
			}
		}
		n.t.Logf("%s", n.picture(tr))
	}
}

// hostNetwork: a pod that shares the node's addresses is known by its cgroup.
func (n *node) hostNetwork() {
	n.traced("agent*.example.org.", func(name string) { n.lookup("agent", name) }, func(tr *trace.Trace) error { return ends(tr, "agent", "") })
}

// shortLived: a pod that is gone before anybody asks is still named.
func (n *node) shortLived() {
	tr := n.traced("short*.example.org.", func(name string) {
		n.Kubectl("-n", "demo", "run", "short", "--image=localhost/pod:latest", "--image-pull-policy=IfNotPresent", "--restart=Never", "--", "lookup", name)
		n.Kubectl("-n", "demo", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/short", "--timeout=60s")
		n.Kubectl("-n", "demo", "delete", "pod", "short", "--now")
	}, func(tr *trace.Trace) error { return ends(tr, "short", "") })
	if tr.Client.Container != "short" {
		n.t.Errorf("its container is %q", tr.Client.Container)
	}
}

// dropped: a rule as a NetworkPolicy makes it, and who it hits.
func (n *node) dropped(mode string) {
	web := n.Pod("demo", "app=web")
	ip := strings.TrimSpace(n.Kubectl("-n", "demo", "get", "pod", web, "-o=jsonpath={.status.podIP}"))
	add, remove := []string{"iptables", "-I", "FORWARD", "-s", ip, "-p", "udp", "--dport", "53", "-j", "DROP"}, []string{"iptables", "-D", "FORWARD", "1"}
	if mode == "nftables" {
		add = []string{"nft", fmt.Sprintf("table ip dnspolicy { chain forward { type filter hook forward priority 0; ip saddr %s udp dport 53 drop; }; }", ip)}
		remove = []string{"nft", "delete table ip dnspolicy"}
	}
	tr := n.traced("dropped*.example.org.", func(name string) {
		if _, err := n.Exec(add...); err != nil {
			n.t.Fatal(err)
		}
		n.lookup(web, name)
		if _, err := n.Exec(remove...); err != nil {
			n.t.Fatal(err)
		}
	}, func(tr *trace.Trace) error {
		if !slices.Contains(codes(tr), "dropped-by-netfilter") {
			return fmt.Errorf("outcome %s, findings %v", tr.Outcome, codes(tr))
		}
		return ends(tr, web, "Deployment/web")
	})
	n.t.Logf("%s", n.picture(tr))
}

// apiServerGone: an API server that stops to answer, for running tracers and for one
// that starts meanwhile.
func (n *node) apiServerGone() {
	web := n.Pod("demo", "app=web")
	n.signal("STOP", "kube-apiserver")
	n.tracedBy(n.explainWithoutAPI, "frozen*.example.org.", n.lookupWithoutAPI, func(tr *trace.Trace) error { return ends(tr, web, "Deployment/web") })
	old := n.processes("dnstrace")[0]
	if _, err := n.Exec("kill", "-KILL", old); err != nil {
		n.t.Fatal(err)
	}
	n.Eventually("the kubelet starts the tracer without the API server", time.Minute, func() error {
		if now := n.running("dnstrace"); now == "" || strings.Contains(now, old) {
			return fmt.Errorf("process %q, before %s", now, old)
		}
		return nil
	})
	n.Eventually("the tracer that began without names says so", time.Minute, func() error {
		page, err := n.metrics(n.processes("dnstrace")[0], "127.0.0.1")
		if err == nil && !strings.Contains(page, "dnstrace_kubernetes_synced 0\n") {
			err = errors.New(page)
		}
		return err
	})
	n.tracedBy(n.explainWithoutAPI, "nameless*.example.org.", n.lookupWithoutAPI, func(tr *trace.Trace) error {
		if c := tr.Client; c == nil || c.Pod != "" || c.Cgroup == "" || c.Process != "pod" {
			return fmt.Errorf("client %+v", c)
		}
		return nil
	})
	n.signal("CONT", "kube-apiserver")
	n.Eventually("the tracer is ready", time.Minute, func() error {
		_, err := n.TryKubectl("-n", "dnstrace", "exec", "daemonset/dnstrace", "--", "/dnstrace", "check", "--ready")
		return err
	})
	n.traced("thawed*.example.org.", func(name string) { n.lookup(web, name) }, func(tr *trace.Trace) error { return ends(tr, web, "Deployment/web") })
}

// killed: the tracer's process is killed under load, and its pod is deleted.
func (n *node) killed() {
	old := n.Pod("dnstrace", "app.kubernetes.io/name=dnstrace")
	if _, err := n.Exec("pkill", "-KILL", "-x", "dnstrace"); err != nil {
		n.t.Fatal(err)
	}
	n.Eventually("the tracer is started again", time.Minute, func() error {
		out, err := n.TryKubectl("-n", "dnstrace", "get", "pod", old, "-o=jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if err == nil && out != "2 true" { // the first was without the API server
			err = errors.New(out)
		}
		return err
	})
	n.Kubectl("-n", "dnstrace", "delete", "pod", old, "--force", "--grace-period=0")
	n.Kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=60s")
	web := n.Pod("demo", "app=web")
	n.traced("after*.example.org.", func(name string) { n.lookup(web, name) }, func(tr *trace.Trace) error {
		if err := ends(tr, web, "Deployment/web"); err != nil {
			return err
		}
		return whole(tr, "NOERROR")
	})
}

// nodeLocal: through the node's own cache and CoreDNS behind it, one trace.
func (n *node) nodeLocal() {
	n.Kubectl("apply", "-k", filepath.Join(n.Bin, "..", "deploy", "node-local"))
	n.Kubectl("-n", "kube-system", "rollout", "status", "daemonset/node-local-dns", "--timeout=60s")
	ip := strings.TrimSpace(n.Kubectl("-n", "kube-system", "get", "service", "node-local-dns", "-o=jsonpath={.spec.clusterIP}"))
	n.Kubectl("-n", "demo", "run", "cached", "--image=localhost/pod:latest", "--image-pull-policy=IfNotPresent", "--restart=Never",
		`--overrides={"spec":{"dnsPolicy":"None","dnsConfig":{"nameservers":["`+ip+`"]}}}`, "--", "sleep")
	n.Kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod/cached", "--timeout=60s")
	n.notRoot("node-local-dns")
	n.Eventually("kube-proxy knows the node's cache", time.Minute, func() error {
		if out := n.lookup("cached", "early.example.org."); !strings.Contains(out, "192.0.2.80") {
			return errors.New(out)
		}
		return nil
	})
	tr := n.traced("chain*.example.org.", func(name string) { n.lookup("cached", name) }, func(tr *trace.Trace) error {
		switch {
		case tr.Client == nil || tr.Client.Pod != "cached":
			return fmt.Errorf("client %+v", tr.Client)
		case tr.Server == nil || tr.Server.Service != "kube-system/node-local-dns" || tr.Server.Workload != "DaemonSet/node-local-dns":
			return fmt.Errorf("server %+v", tr.Server)
		case tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Query == nil || len(tr.Upstreams[0].Upstreams) != 1:
			return fmt.Errorf("%d upstreams of %+v", len(tr.Upstreams), tr.Query)
		}
		if s := tr.Upstreams[0].Exchange.Server; s == nil || s.Service != "kube-system/kube-dns" || !strings.HasPrefix(s.Pod, "coredns-") {
			return fmt.Errorf("upstream %+v", s)
		}
		return nil
	})
	n.t.Logf("%s", n.picture(tr))

	n.startLoad(200, ip+":53", "cached.example.org")
	n.Kubectl("-n", "kube-system", "rollout", "restart", "daemonset/node-local-dns")
	n.Kubectl("-n", "kube-system", "rollout", "status", "daemonset/node-local-dns", "--timeout=120s")
	n.Eventually("the old cache is gone", time.Minute, func() error {
		out, err := n.TryKubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=node-local-dns", "-o", "name")
		if err == nil && strings.Count(out, "\n") != 1 {
			err = errors.New(out)
		}
		return err
	})
	n.replaced("the node's cache")
}

// harmed asks the load, which ran through all of it, what it missed: nothing, though
// tracers were killed, deleted and rolled out, and the API server stopped.
func (n *node) harmed() {
	if c := n.endLoad(); c.asked < 1000 || c.retried != 0 || c.answered != c.asked {
		n.t.Errorf("while tracers were killed: %+v", c)
	}
}
