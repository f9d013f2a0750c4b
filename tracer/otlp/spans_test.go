package otlp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/trace"
)

// Traces of real lookups of the lab become the spans in the golden file beside
// them. DNSTRACE_UPDATE=1 rewrites it: read the difference before you commit it.
func TestSpansOfRecordedTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded traces: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".jsonl"), func(t *testing.T) {
			got := drawSpans(resourceSpans(testIdentity(t), recorded(t, path)))
			golden := strings.TrimSuffix(path, ".jsonl") + ".golden"
			if os.Getenv("DNSTRACE_UPDATE") != "" {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s; got:\n%s", golden, got)
			}
		})
	}
}

func testIdentity(t *testing.T) identity {
	t.Helper()
	id, err := newIdentity(func(string) string { return "" }, "1.2.3", "node-a")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// recorded reads the traces of a file.
func recorded(t testing.TB, path string) []*trace.Trace {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*trace.Trace
	for reader := trace.NewReader(f); ; {
		r, _, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.(*trace.Trace))
	}
}

// drawSpans writes spans as a tree in each trace, which also shows whether every
// parent is there.
func drawSpans(list []*tracepb.ResourceSpans) []byte {
	var out bytes.Buffer
	children := map[string][]*tracepb.Span{}
	known := map[string]bool{}
	var all []*tracepb.Span
	for _, r := range list {
		fmt.Fprintf(&out, "resource%s\n", drawAttributes(r.GetResource().GetAttributes()))
		for _, s := range r.GetScopeSpans()[0].GetSpans() {
			all = append(all, s)
			known[string(s.GetSpanId())] = true
			children[string(s.GetParentSpanId())] = append(children[string(s.GetParentSpanId())], s)
		}
	}
	for _, s := range all {
		if !known[string(s.GetParentSpanId())] {
			drawSpan(&out, s, s, children, "")
		}
	}
	return out.Bytes()
}

func drawSpan(out io.Writer, s, top *tracepb.Span, children map[string][]*tracepb.Span, indent string) {
	if s == top {
		fmt.Fprintf(out, "\ntrace %x from %s\n", s.GetTraceId(), time.Unix(0, int64(s.GetStartTimeUnixNano())).UTC().Format(time.RFC3339Nano))
		if len(s.GetParentSpanId()) > 0 {
			fmt.Fprintf(out, "below %x, which this node does not send\n", s.GetParentSpanId())
		}
	}
	since := func(at uint64) time.Duration { return time.Duration(at - top.GetStartTimeUnixNano()) }
	kind := strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"))
	fmt.Fprintf(out, "%s%s (%s) %x at %s for %s\n", indent, s.GetName(), kind, s.GetSpanId(),
		since(s.GetStartTimeUnixNano()), time.Duration(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano()))
	indent += "  "
	if s.GetStatus() != nil {
		fmt.Fprintf(out, "%s! %s: %s\n", indent, s.GetStatus().GetCode(), s.GetStatus().GetMessage())
	}
	for _, a := range s.GetAttributes() {
		fmt.Fprintf(out, "%s-%s\n", indent, drawAttributes([]*commonpb.KeyValue{a}))
	}
	for _, l := range s.GetLinks() {
		fmt.Fprintf(out, "%s> link %x %x\n", indent, l.GetTraceId(), l.GetSpanId())
	}
	for _, e := range s.GetEvents() {
		fmt.Fprintf(out, "%s* %s %s%s\n", indent, since(e.GetTimeUnixNano()), e.GetName(), drawAttributes(e.GetAttributes()))
	}
	for _, c := range children[string(s.GetSpanId())] {
		if bytes.Equal(c.GetTraceId(), s.GetTraceId()) {
			drawSpan(out, c, top, children, indent)
		}
	}
}

func drawAttributes(list []*commonpb.KeyValue) string {
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, " %s=%s", a.GetKey(), drawValue(a.GetValue()))
	}
	return b.String()
}

func drawValue(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *commonpb.AnyValue_ArrayValue:
		var all []string
		for _, e := range v.ArrayValue.GetValues() {
			all = append(all, drawValue(e))
		}
		return "[" + strings.Join(all, " | ") + "]"
	}
	return "?"
}

// spansOf makes the spans of one trace, by name.
func spansOf(t *testing.T, tr *trace.Trace) map[string]*tracepb.Span {
	t.Helper()
	all := map[string]*tracepb.Span{}
	for _, r := range resourceSpans(testIdentity(t), []*trace.Trace{tr}) {
		for _, s := range r.GetScopeSpans()[0].GetSpans() {
			if all[s.GetName()] != nil {
				t.Fatalf("two spans %s", s.GetName())
			}
			all[s.GetName()] = s
		}
	}
	return all
}

// one returns the only trace of a file.
func one(t testing.TB, name string) *trace.Trace {
	t.Helper()
	all := recorded(t, filepath.Join("testdata", name+".jsonl"))
	if len(all) != 1 {
		t.Fatalf("%s: %d traces", name, len(all))
	}
	return all[0]
}

// beyond makes the first exchange of a trace what another node than the client's
// saw of it.
func beyond(tr *trace.Trace) *trace.Trace {
	var path []trace.Sighting
	for _, s := range tr.Exchange.Path.All() {
		if len(path) > 0 || s.Direction != trace.DirectionTX {
			path = append(path, s)
		}
	}
	tr.Exchange.Path = trace.PathOf(path...)
	tr.Exchange.Milestones = trace.Milestones{
		Query:    trace.Progress{Left: trace.NotObservable},
		Response: trace.Progress{Arrived: trace.NotObservable, Read: trace.NotObservable},
	}
	return tr
}

// Two nodes that see one lookup send different spans, and parents fit.
func TestEachSpanHasOneSender(t *testing.T) {
	clientSide := one(t, "tracer-alone")
	clientSide.Upstreams = nil
	serverSide := beyond(one(t, "silent-upstream"))
	serverSide.TraceID = clientSide.TraceID
	// As the plugin derives it where it adopts nothing.
	parent := trace.NewSpanID(clientSide.TraceID, trace.SpanID{}, trace.RoleClient, 0)
	serverSide.Query.TraceID, serverSide.Query.ParentSpanID = clientSide.TraceID, &parent
	serverSide.Query.SpanID = trace.NewSpanID(clientSide.TraceID, parent, trace.RoleServer, 0)
	client, server := spansOf(t, clientSide), spansOf(t, &trace.Trace{
		Header: serverSide.Header, QType: serverSide.QType, Outcome: serverSide.Outcome, Exchange: serverSide.Exchange, Query: serverSide.Query})
	if len(client) != 1 || len(server) != 1 {
		t.Fatalf("%d and %d spans, expected one each", len(client), len(server))
	}
	if got, want := server["coredns A"].GetParentSpanId(), client["lookup A"].GetSpanId(); !bytes.Equal(got, want) {
		t.Errorf("the parent of CoreDNS's span is %x, the client's span %x", got, want)
	}
	if len(server["coredns A"].GetEvents()) <= len(serverSide.Query.Hops) {
		t.Error("what the server's node saw of the packets is lost")
	}
}

// A node on the way tells what it saw in a span of its own: the same at each
// attempt to tell, another at each node.
func TestNodeOnTheWay(t *testing.T) {
	tr := beyond(one(t, "tracer-alone"))
	tr.Upstreams = nil
	s := spansOf(t, tr)["observed A"]
	if s == nil || len(s.GetEvents()) != tr.Exchange.Path.Len() {
		t.Fatalf("%v", s)
	}
	if client := clientSpan(tr); !bytes.Equal(s.GetParentSpanId(), client[:]) {
		t.Errorf("its parent is %x, not the client's span %s", s.GetParentSpanId(), client)
	}
	if observedSpan(tr, "node-a") == observedSpan(tr, "node-b") {
		t.Error("two nodes send the same span")
	}
}

// The span that a TRACEPARENT names is the parent where CoreDNS took it, and a
// link where nobody did.
func TestForeignParent(t *testing.T) {
	foreign := trace.Traceparent{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}
	tr := one(t, "silent-upstream")
	tr.Exchange.Traceparent = foreign.String()
	tr.TraceID, tr.Query.TraceID, tr.Query.ParentSpanID = foreign.TraceID, foreign.TraceID, &foreign.SpanID
	tr.Query.SpanID = trace.NewSpanID(foreign.TraceID, foreign.SpanID, trace.RoleServer, 0)
	tr.Upstreams = nil
	spans := spansOf(t, tr)
	for _, name := range []string{"lookup A", "coredns A"} {
		if s := spans[name]; !bytes.Equal(s.GetTraceId(), foreign.TraceID[:]) || !bytes.Equal(s.GetParentSpanId(), foreign.SpanID[:]) || len(s.GetLinks()) != 0 {
			t.Errorf("%s: trace %x, parent %x, links %v", name, s.GetTraceId(), s.GetParentSpanId(), s.GetLinks())
		}
	}
	tr = one(t, "tracer-alone")
	tr.Exchange.Traceparent = foreign.String()
	tr.Upstreams = nil
	s := spansOf(t, tr)["lookup A"]
	if len(s.GetLinks()) != 1 || hex.EncodeToString(s.GetLinks()[0].GetSpanId()) != foreign.SpanID.String() || len(s.GetParentSpanId()) != 0 {
		t.Errorf("links %v, parent %x", s.GetLinks(), s.GetParentSpanId())
	}
}

// A server below an attempt that it did not know of still hangs from it, under the
// ids that it would have had.
func TestUnstampedChain(t *testing.T) {
	tr, behind := one(t, "silent-upstream"), one(t, "silent-upstream").Query
	behind.TraceID[0] ^= 1
	tr.Upstreams = tr.Upstreams[:1]
	tr.Upstreams[0].Query = behind
	attempt := trace.NewSpanID(tr.TraceID, tr.Query.SpanID, trace.RoleAttempt, 1)
	server := trace.NewSpanID(tr.TraceID, attempt, trace.RoleServer, 0)
	found := false
	for _, r := range resourceSpans(testIdentity(t), []*trace.Trace{tr}) {
		for _, s := range r.GetScopeSpans()[0].GetSpans() {
			if bytes.Equal(s.GetSpanId(), server[:]) {
				found = bytes.Equal(s.GetParentSpanId(), attempt[:]) && bytes.Equal(s.GetTraceId(), tr.TraceID[:])
			}
		}
	}
	if !found {
		t.Error("no span of the second server below the attempt")
	}
}

// Pods are resources: the client's span is of the client's pod, and CoreDNS's of
// CoreDNS's.
func TestResourceOfPod(t *testing.T) {
	tr := one(t, "silent-upstream")
	tr.Client = &trace.Endpoint{Pod: "web-1", Namespace: "shop", Container: "app", Node: "node-b", Workload: "Deployment/web"}
	tr.Server = &trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Service: "kube-system/kube-dns"}
	tr.Exchange.Server = tr.Server
	rate := 0.25
	tr.Sample, tr.ClockOffset = &rate, trace.SecondsPtr(-time.Millisecond)
	got := string(drawSpans(resourceSpans(testIdentity(t), []*trace.Trace{tr})))
	for _, want := range []string{
		"resource host.name=node-a k8s.container.name=app k8s.deployment.name=web k8s.namespace.name=shop k8s.node.name=node-b k8s.pod.name=web-1 service.name=dnstrace service.version=1.2.3\n",
		"resource host.name=node-a k8s.namespace.name=kube-system k8s.pod.name=coredns-1 service.name=dnstrace service.version=1.2.3\n",
		" dnstrace.server=kube-system/coredns-1\n", " dnstrace.service=kube-system/kube-dns\n", " dnstrace.sample=0.25\n", " dnstrace.clock_offset_seconds=-0.001\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// A connection that could not be opened has asked nothing: what is not known of a
// message is absent, not 0.
func TestConnectionHasNoMessage(t *testing.T) {
	tr := one(t, "silent-upstream")
	e := tr.Exchange
	e.DNS = trace.DNS{ClientIP: e.ClientIP, ClientPort: e.ClientPort, Protocol: "tcp", BufSize: e.BufSize}
	tr.QName, tr.QType, tr.Query, tr.Upstreams = "", "", nil, nil
	s := spansOf(t, tr)["lookup"]
	got := map[string]string{}
	for _, kv := range s.GetAttributes() {
		got[kv.GetKey()] = drawValue(kv.GetValue())
	}
	for _, absent := range []string{"dnstrace.id", "dnstrace.qtype", "dns.question.name", "dnstrace.rcode"} {
		if value, ok := got[absent]; ok {
			t.Errorf("%s=%s", absent, value)
		}
	}
	if got["network.transport"] != "tcp" || got["client.address"] != e.ClientIP.String() || got["client.port"] == "" || got["server.port"] != "53" {
		t.Errorf("attributes %v", got)
	}
}

// Text that is no UTF-8 must not make a whole batch undeliverable, and many packets
// must not push out the finding.
func TestHostileTrace(t *testing.T) {
	tr := one(t, "silent-upstream")
	tr.QName, tr.Query.Error, tr.Exchange.QName = "\xff.", "\xfe", "\xff."
	for i := 0; tr.Exchange.Path.Len() < 10*maxEvents; i++ {
		tr.Exchange.Path.Append(tr.Exchange.Path.At(i))
	}
	s := spansOf(t, &trace.Trace{Header: tr.Header, QType: tr.QType, Exchange: tr.Exchange, Diagnosis: tr.Diagnosis})["lookup A"]
	if _, err := proto.Marshal(s); err != nil {
		t.Error(err)
	}
	if n := len(s.GetEvents()); n != maxPackets+1 || s.GetEvents()[maxPackets].GetName() != eventFinding || int(s.GetDroppedEventsCount()) != tr.Exchange.Path.Len()-maxPackets {
		t.Errorf("%d events, %d left out", n, s.GetDroppedEventsCount())
	}
}
