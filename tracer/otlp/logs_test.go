package otlp

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func TestLogRecord(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	failover, dropped := one(t, "silent-upstream"), recorded(t, "testdata/dropped-query.jsonl")[0]
	failover.Client = &trace.Endpoint{Pod: "web-1", Namespace: "shop"}
	for _, tt := range []struct {
		name     string
		record   trace.Record
		span     trace.SpanID
		severity string
		want     string
	}{
		{"answered, with a finding", failover, clientSpan(failover), "WARN",
			" record=trace qname=failover.test. qtype=A rcode=NOERROR outcome=answered findings=upstream-timeout pod=web-1 pod_namespace=shop"},
		{"its exchange", failover.Exchange, clientSpan(failover), "INFO",
			" record=exchange qname=failover.test. qtype=A rcode=NOERROR outcome=answered"},
		{"dropped", dropped, clientSpan(dropped), "ERROR",
			" record=trace qname=server-input.test. qtype=A outcome=dropped findings=dropped-by-netfilter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := tt.record.AppendJSON(nil)
			e := newEntry(tt.record, line, now)
			clear(line) // the entry shares no memory with either
			*tt.record.Head() = trace.Header{}
			l := e.record()
			if got := drawAttributes(l.GetAttributes()); got != tt.want || l.GetSeverityText() != tt.severity {
				t.Errorf("%s%s", l.GetSeverityText(), got)
			}
			if trace.SpanID(l.GetSpanId()) != tt.span {
				t.Errorf("span %x, expected %s", l.GetSpanId(), tt.span)
			}
			rec, err := trace.Decode([]byte(l.GetBody().GetStringValue()))
			if err != nil {
				t.Fatal(err)
			}
			h := rec.Head()
			if trace.TraceID(l.GetTraceId()) != h.TraceID || l.GetTimeUnixNano() != uint64(h.Time.UnixNano()) || l.GetObservedTimeUnixNano() != uint64(now.UnixNano()) {
				t.Errorf("trace %x at %d", l.GetTraceId(), l.GetTimeUnixNano())
			}
		})
	}
}

// A log record names the span that a reader finds first in the trace.
func TestLogNamesTheTopSpan(t *testing.T) {
	for _, name := range []string{"silent-upstream", "tracer-alone", "refresh-stale", "dropped-query"} {
		for _, tr := range recorded(t, "testdata/"+name+".jsonl") {
			id := topSpan(tr)
			top := resourceSpans(testIdentity(t), []*trace.Trace{tr})[0].GetScopeSpans()[0].GetSpans()[0]
			if trace.SpanID(top.GetSpanId()) != id {
				t.Errorf("%s: %s names %s, and the first span is %s %x", name, tr.QName, id, top.GetName(), top.GetSpanId())
			}
		}
	}
}
