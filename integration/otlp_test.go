//go:build otlp

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/spanstore"
	"github.com/dnstrace/dnstrace/trace"
)

// What the tracer sends through a real OpenTelemetry Collector, over gRPC with TLS
// to a name, is read back from a real Jaeger as one tree a lookup, and from a real
// Loki as the records that a file holds.
func TestOTLPIsReadBack(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	jaeger, loki := spanstore.StartJaeger(t, r.Lab), startLoki(t, r.Lab)
	collector := startOTLPCollector(t, r.Lab, jaeger.OTLP, loki)
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", collector.cert)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=lab,k8s.namespace.name=dnstrace")
	if _, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--output", "otlp:"+collector.grpcs)...); err != nil {
		t.Fatal(err)
	}
	startChain(t, r)
	front := netip.AddrPortFrom(r.Host("client-b").V4, 53)

	t.Run("a lookup", func(t *testing.T) {
		r.answered(lab.Query{Name: "one.otlp.test."})
		tr := r.trace("one.otlp.test.")
		spans := jaeger.Spans(t, tr.TraceID, 3)
		client := checkSpan(t, spans, clientOf(tr.TraceID), trace.SpanID{}, "lookup A")
		checkLookup(t, client, tr)
		server := checkSpan(t, spans, tr.Query.SpanID, clientOf(tr.TraceID), "coredns A")
		if got, want := server.StartTime, tr.Query.Time.UnixMicro(); got != want {
			t.Errorf("CoreDNS's span starts at %d µs, its record at %d", got, want)
		}
		upstream := checkSpan(t, spans, attemptOf(tr.Query, 1), tr.Query.SpanID, "upstream A")
		if got, want := upstream.Tags.Get("network.peer.address")+":"+upstream.Tags.Get("network.peer.port"), r.Upstream(0).V4().String(); got != want {
			t.Errorf("the upstream's address is %s, expected %s", got, want)
		}
		checkLogs(t, r, loki, tr)
	})

	t.Run("a chain", func(t *testing.T) {
		r.answered(lab.Query{Name: "chain.otlp.test.", Server: front})
		tr := r.trace("chain.otlp.test.")
		checkChain(t, tr)
		spans := jaeger.Spans(t, tr.TraceID, 5)
		first, second := tr.Query, tr.Upstreams[0].Query
		checkSpan(t, spans, clientOf(tr.TraceID), trace.SpanID{}, "lookup A")
		checkSpan(t, spans, first.SpanID, clientOf(tr.TraceID), "coredns A")
		checkSpan(t, spans, attemptOf(first, 1), first.SpanID, "upstream A")
		checkSpan(t, spans, second.SpanID, attemptOf(first, 1), "coredns A")
		checkSpan(t, spans, attemptOf(second, 1), second.SpanID, "upstream A")
	})

	t.Run("below an application's span", func(t *testing.T) {
		application := trace.Traceparent{TraceID: trace.TraceID{15: 7, 0: 1}, SpanID: trace.SpanID{0: 1, 7: 9}}
		m := new(dns.Msg).SetQuestion("app.otlp.test.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: application.Append(nil)}}
		begin := time.Now()
		r.answered(lab.Query{Name: "app.otlp.test.", Message: m})
		if err := jaeger.Send("application/json", applicationSpan(application, "GET /", begin, time.Now())); err != nil {
			t.Fatal(err)
		}
		tr := r.trace("app.otlp.test.")
		spans := jaeger.Spans(t, application.TraceID, 4)
		checkSpan(t, spans, application.SpanID, trace.SpanID{}, "GET /")
		checkSpan(t, spans, tr.Query.SpanID, application.SpanID, "coredns A")
		checkSpan(t, spans, trace.NewSpanID(application.TraceID, application.SpanID, trace.RoleClient, 0), application.SpanID, "lookup A")
	})

	t.Run("a failure", func(t *testing.T) {
		undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries})
		if err != nil {
			t.Fatal(err)
		}
		defer undo()
		r.ask(lab.Query{Name: "dropped.otlp.test."})
		tr := r.trace("dropped.otlp.test.")
		client := checkSpan(t, jaeger.Spans(t, tr.TraceID, 1), clientOf(tr.TraceID), trace.SpanID{}, "lookup A")
		if client.Tags.Get("otel.status_description") != tr.Diagnosis[0].Summary || client.Tags.Get("error.type") != tr.Diagnosis[0].Code || client.Events()["drop"] != 1 {
			t.Errorf("tags %v, events %v", client.Tags, client.Events())
		}
		entry := logs(t, loki, fmt.Sprintf(`{job="dnstrace"} | trace_id=%q | record="trace"`, tr.TraceID), 1)[0]
		if entry.labels["severity_text"] != "ERROR" || entry.labels["findings"] != tr.Diagnosis[0].Code {
			t.Errorf("beside the line: %v", entry.labels)
		}
	})
}

// startChain starts a CoreDNS that asks another one; both stamp, and the second
// accepts it.
func startChain(t *testing.T, r *rig) {
	t.Helper()
	for host, corefile := range map[string]string{
		"client-b": fmt.Sprintf(". {\n dnstrace {\n output unix %s\n stamp all\n }\n forward . %s\n}\n", r.RecordSocket(), r.Host(lab.CoreDNS).V4),
		lab.CoreDNS: fmt.Sprintf(". {\n dnstrace {\n output unix %s\n accept %s\n stamp all\n }\n forward . %s\n}\n",
			r.RecordSocket(), lab.PodNetV4, r.Upstream(0).V4()),
	} {
		if _, err := r.StartCoreDNSOn(host, corefile); err != nil {
			t.Fatal(err)
		}
	}
}

func clientOf(id trace.TraceID) trace.SpanID {
	return trace.NewSpanID(id, trace.SpanID{}, trace.RoleClient, 0)
}

func attemptOf(q *trace.Query, n int) trace.SpanID {
	return trace.NewSpanID(q.TraceID, q.SpanID, trace.RoleAttempt, n)
}

// applicationSpan is a span as an application sends it.
func applicationSpan(p trace.Traceparent, name string, start, end time.Time) []byte {
	return fmt.Appendf(nil, `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"application"}}]},
		"scopeSpans":[{"spans":[{"traceId":%q,"spanId":%q,"name":%q,"startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`,
		p.TraceID, p.SpanID, name, start.UnixNano(), end.UnixNano())
}

// checkSpan holds a span of Jaeger against the contract's ids.
func checkSpan(t *testing.T, spans map[string]spanstore.Span, id, parent trace.SpanID, name string) spanstore.Span {
	t.Helper()
	s, ok := spans[id.String()]
	if !ok {
		t.Fatalf("no span %s %s in %v", name, id, spans)
	}
	want := parent.String()
	if parent.IsZero() {
		want = ""
	}
	if s.OperationName != name || s.Parent() != want {
		t.Errorf("span %s is %s below %q, expected %s below %q", id, s.OperationName, s.Parent(), name, want)
	}
	return s
}

// checkLookup holds a client's span against the record.
func checkLookup(t *testing.T, s spanstore.Span, tr *trace.Trace) {
	t.Helper()
	if got, want := s.StartTime, tr.Time.UnixMicro(); got != want {
		t.Errorf("it starts at %d µs, the record at %d", got, want)
	}
	if got, want := s.Duration, tr.Duration.Duration().Microseconds(); got < want-1 || got > want+1 {
		t.Errorf("it takes %d µs, in the record %d", got, want)
	}
	packets := 0
	for name, n := range s.Events() {
		if strings.HasPrefix(name, trace.MessageQuery) || strings.HasPrefix(name, trace.MessageResponse) {
			packets += n
		}
	}
	if packets != tr.Exchange.Path.Len() {
		t.Errorf("%d packets among its events %v, %d in the record", packets, s.Events(), tr.Exchange.Path.Len())
	}
	for key, want := range map[string]string{
		"dns.question.name": tr.QName, "dnstrace.rcode": "NOERROR", "network.transport": "udp", "span.kind": "client",
		"client.address": tr.Exchange.ClientIP.String(), "server.address": tr.Exchange.ServerIP.String(),
		"network.peer.address": tr.Exchange.NAT.ServerIP.String(), "network.peer.port": fmt.Sprint(*tr.Exchange.NAT.ServerPort),
	} {
		if got := s.Tags.Get(key); got != want {
			t.Errorf("%s is %q, expected %q", key, got, want)
		}
	}
	for key, want := range map[string]string{"service.name": "dnstrace", "k8s.cluster.name": "lab"} {
		if got := s.Process.Get(key); got != want {
			t.Errorf("of the resource, %s is %q, expected %q", key, got, want)
		}
	}
}

// checkLogs holds what Loki has of a lookup against the record, and reads it back as
// users do.
func checkLogs(t *testing.T, r *rig, loki string, tr *trace.Trace) {
	t.Helper()
	const stream = `{job="dnstrace", cluster="lab", component="tracer"}`
	for _, kind := range []string{trace.KindExchange, trace.KindTrace} {
		entry := logs(t, loki, fmt.Sprintf(`%s | trace_id=%q | record=%q`, stream, tr.TraceID, kind), 1)[0]
		for key, want := range map[string]string{
			"span_id": clientOf(tr.TraceID).String(), "qname": tr.QName, "rcode": "NOERROR", "outcome": "answered", "severity_text": "INFO",
		} {
			if entry.labels[key] != want {
				t.Errorf("%s: beside the line, %s is %q, expected %q", kind, key, entry.labels[key], want)
			}
		}
		rec, err := trace.Decode([]byte(entry.line))
		if err != nil || rec.Kind() != kind || rec.Head().TraceID != tr.TraceID {
			t.Errorf("%s: the line is not the record (%v): %s", kind, err, entry.line)
		}
	}
	// The labels are those of a shipper of files, and no others: their number is bounded.
	var series struct {
		Data []map[string]string `json:"data"`
	}
	getJSON(t, loki+"/loki/api/v1/series?match[]="+url.QueryEscape(`{job="dnstrace"}`), &series)
	if len(series.Data) != 1 {
		t.Errorf("streams %v", series.Data)
	}
	for _, labels := range series.Data {
		delete(labels, "service_name") // Loki's own
		if got, want := fmt.Sprint(labels), fmt.Sprint(map[string]string{
			"job": "dnstrace", "component": "tracer", "cluster": "lab", "namespace": "dnstrace", "node": lab.NodeName,
		}); got != want {
			t.Errorf("labels %s, expected %s", got, want)
		}
	}
	out, err := r.Dnstrace(context.Background(), "explain", tr.TraceID.String(), "--loki", loki)
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, tr.QName, "COREDNS", "UPSTREAM 1")
}
