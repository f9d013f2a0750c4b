package otlp

import (
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/trace"
)

// What a trace costs on the packets' path (clone, entry) and off it (its spans in
// protobuf).
func BenchmarkTrace(b *testing.B) {
	tr := one(b, "silent-upstream")
	line := tr.AppendJSON(nil)
	id, err := newIdentity(func(string) string { return "" }, "1.2.3", "node-a")
	if err != nil {
		b.Fatal(err)
	}
	for name, step := range map[string]func(b *testing.B){
		"clone": func(*testing.B) { cloneTrace(tr) },
		"entry": func(*testing.B) { newEntry(tr, line, time.Time{}) },
		"spans": func(b *testing.B) {
			out, err := proto.Marshal(&coltracepb.ExportTraceServiceRequest{ResourceSpans: resourceSpans(id, []*trace.Trace{tr})})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(out)), "bytes")
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				step(b)
			}
		})
	}
}
