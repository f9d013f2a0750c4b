//go:build cilium

package cilium

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/kubernetes/kubenode"
)

//go:embed network.sh
var network string

//go:embed addons.sh
var addons string

// coreDNSProcess matches the command line of CoreDNS in its pods.
const coreDNSProcess = "^/coredns "

// The tracer writes into a folder that it shares with the node: here, and there.
const (
	recordsFolder = "/run/dnstrace-records"
	recordsFile   = "/run/dnstrace/records.jsonl"
)

// resolver is what the resolver outside answers: below slow.test late, below fail.test
// SERVFAIL, below silent.test nothing.
const resolver = `. {
  bind ` + kubenode.Outside + `
  template IN A example.org failover.test {
    answer "{{ .Name }} 300 IN A 192.0.2.80"
  }
  template ANY ANY {
    rcode NXDOMAIN
  }
}
slow.test {
  bind ` + kubenode.Outside + `
  erratic {
    delay 1 700ms
  }
}
fail.test {
  bind ` + kubenode.Outside + `
  template ANY ANY {
    rcode SERVFAIL
  }
}
silent.test {
  bind ` + kubenode.Outside + `
  erratic {
    drop 1
  }
}
. {
  bind 172.31.255.54
  erratic {
    drop 1
  }
}
`

// node is a node whose pods Cilium connects.
type node struct {
	*kubenode.Node
	t testing.TB
}

// startNode starts a node. It goes with the test.
func startNode(t testing.TB, v variant) *node {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"outside.corefile": resolver}
	maps.Copy(files, v.files())
	files["cilium/lib-dir"] = filepath.Join(bin, "cilium", "lib")
	return &node{t: t, Node: kubenode.Start(t, kubenode.Config{
		Network: network, Addons: addons, Files: files, Plugins: "DIR/plugins", ProxyMode: v.proxyMode,
		Env: []string{"SILENT=172.31.255.54"},
	})}
}

// install starts CoreDNS and the pods, and waits until the Service leads to it and the
// policies hold.
func (n *node) install(v variant) {
	n.t.Helper()
	began := time.Now()
	n.Eventually("the agent answers", time.Minute, func() error { return n.worksAs(v.is) })
	for _, name := range []string{"cluster.yaml", "pods.yaml"} {
		n.Kubectl("apply", "-f", n.manifest(name))
	}
	policies := map[string]string{"denied": "egress", "guarded": "ingress", "client": "none"}
	if v.names {
		n.Kubectl("apply", "-f", n.manifest("names.yaml"))
		policies["client"] = "egress"
	}
	n.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	n.Kubectl("-n", "demo", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	n.t.Logf("pods ready within %s", time.Since(began).Round(time.Second))
	n.Eventually("the policies hold", time.Minute, func() error { return n.policies(policies) })
	n.Eventually("the Service leads to CoreDNS", time.Minute, func() error {
		for name, result := range n.lookup([]lookup{{name: "early.example.org.", pod: "client"}, {name: "hostearly.example.org.", pod: "agent"}}) {
			if result != answer {
				return fmt.Errorf("%s %s", name, result)
			}
		}
		return nil
	})
}

// warm puts a name into the cache of each CoreDNS.
func (n *node) warm() {
	n.t.Helper()
	ips := strings.Fields(n.Kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o=jsonpath={.items[*].status.podIP}"))
	for _, ip := range ips {
		if out, err := n.Exec("dig", "+short", "@"+ip, "hit.example.org"); err != nil || strings.TrimSpace(out) != "192.0.2.80" {
			n.t.Fatalf("%s: %v %s", ip, err, out)
		}
	}
}

// trace installs the tracer as deploy/ does, but that it writes all lookups, and into a
// file.
func (n *node) trace() {
	n.t.Helper()
	base, err := filepath.Rel(n.Dir, filepath.Join(n.Bin, "..", "deploy", "base"))
	if err != nil {
		n.t.Fatal(err)
	}
	kubenode.Write(n.t, filepath.Join(n.Dir, "kustomization.yaml"), `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [`+base+`]
patches:
- target: {kind: DaemonSet}
  patch: |-
    - {op: replace, path: /spec/template/spec/containers/0/args, value: [run, --listen=`+recordsFolder+`/records.sock, --record=trace, --output=file:`+recordsFolder+`/records.jsonl]}
`)
	n.Kubectl("apply", "-k", n.Dir)
	n.Kubectl("-n", "dnstrace", "rollout", "status", "daemonset/dnstrace", "--timeout=120s")
	n.t.Log(n.check())
}

// check returns what the tracer says of itself.
func (n *node) check() string {
	return n.Kubectl("-n", "dnstrace", "exec", "daemonset/dnstrace", "--", "/dnstrace", "check")
}

func (n *node) manifest(name string) string {
	path, err := filepath.Abs(filepath.Join("manifests", name))
	if err != nil {
		n.t.Fatal(err)
	}
	return path
}

// agent decodes what the agent's API answers.
func (n *node) agent(path string, v any) error {
	socket := n.Root() + "/run/cilium/cilium.sock"
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://localhost" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return errors.New(path + ": " + r.Status)
	}
	return json.NewDecoder(r.Body).Decode(v)
}

// policies tells whether the policies of pods of namespace demo are in force: egress,
// ingress, none.
func (n *node) policies(want map[string]string) error {
	var endpoints []struct {
		Status struct {
			State  string
			Policy struct {
				Realized struct {
					Enabled string `json:"policy-enabled"`
				}
			}
			External struct {
				Namespace string `json:"k8s-namespace"`
				Pod       string `json:"k8s-pod-name"`
			} `json:"external-identifiers"`
		}
	}
	if err := n.agent("/v1/endpoint", &endpoints); err != nil {
		return err
	}
	got := map[string]string{}
	for _, e := range endpoints {
		if e.Status.State == "ready" && e.Status.External.Namespace == "demo" {
			got[e.Status.External.Pod] = e.Status.Policy.Realized.Enabled
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("%v", got)
	}
	return nil
}
