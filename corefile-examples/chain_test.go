package examples_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"
)

// The two examples of a chain, one behind the other, make one trace.
func TestChain(t *testing.T) {
	backDir, frontDir := t.TempDir(), t.TempDir()
	back := startExample(t, "chain-back.Corefile", backDir, startServers(t))
	front := startExample(t, "chain-front.Corefile", frontDir, servers{plain: back.Servers()[0].LocalAddr().String()})
	ask(t, front.Servers()[0].LocalAddr().String())
	stopExample(t, front)
	stopExample(t, back)
	first, second := onlyQuery(t, frontDir), onlyQuery(t, backDir)
	parent := trace.NewSpanID(first.TraceID, first.SpanID, trace.RoleAttempt, 1)
	if !first.Stamped || second.TraceID != first.TraceID || second.ParentSpanID == nil || *second.ParentSpanID != parent {
		t.Errorf("the front's trace is %s, the back's %s under %s, want %s", first.TraceID, second.TraceID, second.ParentSpanID, parent)
	}
}

func startExample(t *testing.T, file, dir string, asked servers) *caddy.Instance {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input := caddy.CaddyfileInput{Contents: []byte(place(string(content), dir, asked)), Filepath: file, ServerTypeName: "dns"}
	instance, err := caddy.Start(input)
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

func stopExample(t *testing.T, instance *caddy.Instance) {
	t.Helper()
	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Error(err)
	}
}

// onlyQuery returns the query in a file of one record.
func onlyQuery(t *testing.T, dir string) *trace.Query {
	t.Helper()
	content, err := os.ReadFile(dir + "/records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := trace.Decode(bytes.TrimSpace(content))
	if err != nil {
		t.Fatal(err)
	}
	q, ok := rec.(*trace.Query)
	if !ok {
		t.Fatalf("the record is a %s", rec.Kind())
	}
	return q
}
