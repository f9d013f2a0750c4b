//go:build otlp

package integration

import (
	"path/filepath"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// The client on one node and CoreDNS on another, each with a tracer that sees its own
// namespaces only, and that never heard of the other: Jaeger has one tree of what both
// sent, and of whom.
func TestOTLPTwoNodes(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	jaeger := startJaeger(t, r.Lab)
	path, err := r.DnstracePath()
	if err != nil {
		t.Fatal(err)
	}
	for node, hosts := range map[string][]string{"node-1": {"client-a", lab.Node}, "node-2": {lab.CoreDNS, lab.Upstream}} {
		socket := filepath.Join(r.Dir(), node+".sock")
		if node == "node-2" {
			socket = r.RecordSocket()
		}
		args := append([]string{"run", "--listen", socket, "--api", filepath.Join(r.Dir(), node+"-api.sock"), "--metrics", "", "--kubernetes", "off",
			"--output", "otlp:" + jaeger.otlp + "/v1/traces"}, onlyIn(r.Lab, hosts...)...)
		if _, err := r.Start(lab.Spec{Name: node, Path: path, Args: args, Ready: lab.ReadyLine("dnstrace: ready"),
			Env: []string{"NODE_NAME=" + node}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, recording(r.Lab))); err != nil {
		t.Fatal(err)
	}
	const name = "apart.otlp.test."
	r.answered(lab.Query{Name: name})
	q := r.recordsOf(name, pluginRecords(r.Lab), 1, nil)[0].(*trace.Query)
	spans := jaeger.spans(t, q.TraceID, 3)
	for node, list := range map[string][]jaegerSpan{
		"node-1": {checkSpan(t, spans, clientOf(q.TraceID), trace.SpanID{}, "lookup A")},
		"node-2": {checkSpan(t, spans, q.SpanID, clientOf(q.TraceID), "coredns A"), checkSpan(t, spans, attemptOf(q, 1), q.SpanID, "upstream A")},
	} {
		for _, s := range list {
			if got := tag(s.process, "k8s.node.name"); got != node {
				t.Errorf("%s is of %s, expected %s", s.OperationName, got, node)
			}
		}
	}
	if len(spans) != 3 {
		t.Errorf("%d spans", len(spans))
	}
}
