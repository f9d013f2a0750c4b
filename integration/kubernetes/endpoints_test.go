//go:build kubernetes

package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// The Services of manifests/servers.yaml.
const (
	echoServer  = "10.96.0.70:53"
	emptyServer = "10.96.0.71:53"
)

func (n *node) startServers() {
	n.Kubectl("apply", "-f", n.manifest("servers.yaml"))
	n.Kubectl("-n", "demo", "rollout", "status", "deployment/echo", "--timeout=60s")
	web := n.Pod("demo", "app=web")
	n.Eventually("kube-proxy knows the echo server", time.Minute, func() error {
		if out := n.ask(web, 0, echoServer, "early.example.org."); !strings.Contains(out, "NOERROR") {
			return errors.New(out)
		}
		return nil
	})
}

// ask asks a server for a name, from a port of the pod; 0: from any.
func (n *node) ask(pod string, port int, server, name string) string {
	n.t.Helper()
	return n.Kubectl("-n", "demo", "exec", pod, "--", "/pod", "ask", fmt.Sprint(port), server, name)
}

// withoutEndpoints: kube-proxy rejects what is sent to a Service behind which nobody
// is, and the finding says why.
func (n *node) withoutEndpoints() {
	web := n.Pod("demo", "app=web")
	tr := n.traced("empty*.example.org.", func(name string) { n.ask(web, 0, emptyServer, name) }, func(tr *trace.Trace) error {
		return finds(tr, "dropped-by-netfilter", "The Service demo/empty has no ready endpoint", "the EndpointSlices of demo/empty list no address as ready")
	})
	n.t.Logf("%s", n.picture(tr))
}

// staleEndpoint: the pod behind a Service is deleted while kube-proxy does not look,
// so that its entry of connection tracking leads to where nobody is any more.
func (n *node) staleEndpoint() {
	const port = 40053
	web, old := n.Pod("demo", "app=web"), n.Pod("demo", "app=echo")
	ip := strings.TrimSpace(n.Kubectl("-n", "demo", "get", "pod", old, "-o=jsonpath={.status.podIP}"))
	if out := n.ask(web, port, echoServer, "fresh.example.org."); !strings.Contains(out, "NOERROR") {
		n.t.Fatal(out)
	}
	n.signal("STOP", "kube-proxy")
	n.Kubectl("-n", "demo", "delete", "pod", old, "--now")
	n.Eventually("the EndpointSlices list another pod", time.Minute, func() error {
		out, err := n.TryKubectl("-n", "demo", "get", "endpointslices", "-l", "kubernetes.io/service-name=echo",
			"-o=jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}")
		if err == nil && (strings.TrimSpace(out) == "" || strings.Contains(out, ip)) {
			err = errors.New(out)
		}
		return err
	})
	tr := n.traced("stale*.example.org.", func(name string) { n.ask(web, port, echoServer, name) }, func(tr *trace.Trace) error {
		return finds(tr, "stale-endpoint", "the EndpointSlices of demo/echo do not list "+ip+" (pod demo/"+old+") any more")
	})
	n.signal("CONT", "kube-proxy")
	if tr.Server == nil || tr.Server.Service != "demo/echo" || tr.Client == nil || tr.Client.Pod != web {
		n.t.Errorf("client %+v, server %+v", tr.Client, tr.Server)
	}
	n.t.Logf("%s", n.picture(tr))
}

// finds tells whether a trace has a finding, with these words in its summary or
// evidence.
func finds(tr *trace.Trace, code string, words ...string) error {
	for _, f := range tr.Diagnosis {
		if f.Code != code {
			continue
		}
		text := f.Summary + "\n" + strings.Join(f.Evidence, "\n")
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("no %q in %s", w, text)
			}
		}
		return nil
	}
	return fmt.Errorf("outcome %s, findings %v", tr.Outcome, codes(tr))
}
