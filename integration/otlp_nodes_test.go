//go:build otlp

package integration

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/spanstore"
	"github.com/dnstrace/dnstrace/trace"
)

// nodesApart is by how much the clock of the second node is ahead.
const nodesApart = 25 * time.Millisecond

// byClockAhead stands before a receiver and makes of spans what a node with such a
// clock sends.
func byClockAhead(t *testing.T, receiver string) string {
	t.Helper()
	target, err := url.Parse(receiver)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := spansLater(r)
		if err != nil {
			t.Error(err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Header.Del("Content-Encoding")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// spansLater returns the spans of a request, later by nodesApart.
func spansLater(r *http.Request) ([]byte, error) {
	var reader io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		reader = unzipped
	}
	body, err := io.ReadAll(reader)
	if err != nil {
		return nil, err
	}
	var data tracepb.TracesData // on the wire as the request that holds it
	if err := proto.Unmarshal(body, &data); err != nil {
		return nil, err
	}
	for _, resource := range data.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				s.StartTimeUnixNano += uint64(nodesApart)
				s.EndTimeUnixNano += uint64(nodesApart)
				for _, e := range s.Events {
					e.TimeUnixNano += uint64(nodesApart)
				}
			}
		}
	}
	return proto.Marshal(&data)
}

// The client on one node and CoreDNS on another, each with a tracer that sees its own
// namespaces only, by a clock of its own, and that never heard of the other: Jaeger has
// one tree of what both sent, and of whom.
func TestOTLPTwoNodes(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	jaeger := spanstore.StartJaeger(t, r.Lab)
	path, err := r.DnstracePath()
	if err != nil {
		t.Fatal(err)
	}
	for node, hosts := range map[string][]string{"node-1": {"client-a", lab.Node}, "node-2": {lab.CoreDNS, lab.Upstream}} {
		socket, receiver := filepath.Join(r.Dir(), node+".sock"), jaeger.OTLP
		if node == "node-2" {
			socket, receiver = r.RecordSocket(), byClockAhead(t, jaeger.OTLP)
		}
		args := append([]string{"run", "--listen", socket, "--api", filepath.Join(r.Dir(), node+"-api.sock"), "--metrics", "", "--kubernetes", "off",
			"--output", "otlp:" + receiver + "/v1/traces"}, onlyIn(r.Lab, hosts...)...)
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
	spans := jaeger.Spans(t, q.TraceID, 3)
	for node, list := range map[string][]spanstore.Span{
		"node-1": {checkSpan(t, spans, clientOf(q.TraceID), trace.SpanID{}, "lookup A")},
		"node-2": {checkSpan(t, spans, q.SpanID, clientOf(q.TraceID), "coredns A"), checkSpan(t, spans, attemptOf(q, 1), q.SpanID, "upstream A")},
	} {
		for _, s := range list {
			if got := s.Process.Get("k8s.node.name"); got != node {
				t.Errorf("%s is of %s, expected %s", s.OperationName, got, node)
			}
		}
	}
	if got, want := spans[q.SpanID.String()].StartTime, q.Time.Add(nodesApart).UnixMicro(); got != want {
		t.Errorf("CoreDNS's span starts at %d µs, by the clock of its node it is %d", got, want)
	}
	if len(spans) != 3 {
		t.Errorf("%d spans", len(spans))
	}
}
