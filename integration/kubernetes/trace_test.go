//go:build kubernetes

package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/kubernetes/kubenode"
	"github.com/dnstrace/dnstrace/trace"
)

// traced looks up a name with a command, until the tracer tells of such a lookup what
// it must, and returns the trace. A tracer on a busy machine reports a share of the
// lookups: each try has a name of its own, with its number for *.
func (n *node) traced(pattern string, lookup func(name string), is func(*trace.Trace) error) *trace.Trace {
	n.t.Helper()
	return n.tracedBy(n.explain, pattern, lookup, is)
}

// tracedBy does so with another way to ask the tracer.
func (n *node) tracedBy(explain func(name string) (*trace.Trace, error), pattern string, lookup func(name string), is func(*trace.Trace) error) *trace.Trace {
	n.t.Helper()
	const tries = 6
	var err error
	for try := range tries {
		name := strings.ReplaceAll(pattern, "*", strconv.Itoa(try))
		lookup(name)
		// An unanswered one is reported when its timeout is over.
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
			var t *trace.Trace
			if t, err = explain(name); err == nil {
				err = is(t)
			}
			if err == nil {
				return t
			}
		}
		n.t.Logf("%s: %v", name, err)
	}
	n.t.Fatalf("%s: after %d lookups: %v", pattern, tries, err)
	return nil
}

// explain returns the latest trace of a name's address, as the tracer's pod tells it.
func (n *node) explain(name string) (*trace.Trace, error) {
	return firstTrace(n.TryKubectl(append([]string{"-n", "dnstrace", "exec", "daemonset/dnstrace", "--"}, explainAddress(name)...)...))
}

// explainWithoutAPI does so from inside the tracer's container, without the API server.
func (n *node) explainWithoutAPI(name string) (*trace.Trace, error) {
	return firstTrace(n.Exec(append([]string{"nsenter", "-t", n.processes("dnstrace")[0], "-m", "-n"}, explainAddress(name)...)...))
}

func explainAddress(name string) []string {
	return []string{"/dnstrace", "explain", "-o", "json", "-f", fmt.Sprintf("qname == %q and qtype == %q", name, "A"), name}
}

// firstTrace returns the first trace that a command printed.
func firstTrace(out string, err error) (*trace.Trace, error) {
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines([]byte(out)) {
		r, err := trace.Decode(bytes.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		if t, ok := r.(*trace.Trace); ok {
			return t, nil
		}
	}
	return nil, errors.New("no trace")
}

// metrics reads a page of metrics, from a network namespace of the node: that of a
// process, or "1" for the node's own.
func (n *node) metrics(pid, ip string) (string, error) {
	return n.Exec("nsenter", "-t", pid, "-n", "bash", "-c",
		"exec 3<>/dev/tcp/"+ip+"/9464; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")
}

// picture is what a person sees of a trace.
func (n *node) picture(t *trace.Trace) string {
	out, err := n.TryKubectl("-n", "dnstrace", "exec", "daemonset/dnstrace", "--", "/dnstrace", "explain", t.TraceID.String())
	if err != nil {
		return err.Error()
	}
	return out
}

// ends tells whether both ends of a lookup have the names of their pods.
func ends(t *trace.Trace, client, workload string) error {
	switch {
	case t.Client == nil || t.Server == nil:
		return fmt.Errorf("client %+v, server %+v", t.Client, t.Server)
	case t.Client.Pod != client || t.Client.Namespace != "demo" || t.Client.Node != "node1" || t.Client.Workload != workload:
		return fmt.Errorf("client %+v", t.Client)
	case !strings.HasPrefix(t.Server.Pod, "coredns-") || t.Server.Namespace != "kube-system" || t.Server.Node != "node1" ||
		t.Server.Workload != "Deployment/coredns" || t.Server.Service != "kube-system/kube-dns":
		return fmt.Errorf("server %+v", t.Server)
	}
	return nil
}

// whole tells whether all of a lookup is there: the packets at both ends, the address
// translation, CoreDNS's record, and container and process.
func whole(t *trace.Trace, rcode string) error {
	e := t.Exchange
	switch {
	case t.Outcome != trace.OutcomeAnswered || t.RCode != rcode:
		return fmt.Errorf("outcome %s, rcode %s", t.Outcome, t.RCode)
	case e == nil || e.NAT == nil || e.NAT.Source != trace.NATConntrack || e.ServerIP.String() != kubenode.DNS:
		return fmt.Errorf("exchange %+v", e)
	case e.NAT.Endpoint == nil || e.NAT.Endpoint.State != trace.EndpointReady || e.NAT.Endpoint.Pod != "kube-system/"+t.Server.Pod:
		return fmt.Errorf("endpoint %+v", e.NAT.Endpoint)
	case t.Query == nil:
		return errors.New("no record of CoreDNS")
	case t.Client.Cgroup == "" || t.Server.Container != "coredns":
		return fmt.Errorf("client %+v, server %+v", t.Client, t.Server)
	case e.Path.Len() < 8:
		return fmt.Errorf("%d sightings", e.Path.Len())
	}
	return nil
}

func codes(t *trace.Trace) []string {
	var list []string
	for _, f := range t.Diagnosis {
		list = append(list, f.Code)
	}
	return list
}
