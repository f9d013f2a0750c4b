package otlp

import (
	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// signal is logs or traces: how OTLP calls its requests (OTLP Specification 1.10,
// OTLP/gRPC and OTLP/HTTP).
type signal struct {
	path     string // of HTTP
	method   string // of gRPC
	response func() proto.Message
	// rejected tells what of a request was not accepted, and why.
	rejected func(response proto.Message) (n int64, why string)
}

var (
	logsSignal = signal{
		path:     "/v1/logs",
		method:   "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
		response: func() proto.Message { return new(collogspb.ExportLogsServiceResponse) },
		rejected: func(m proto.Message) (int64, string) {
			p := m.(*collogspb.ExportLogsServiceResponse).GetPartialSuccess()
			return p.GetRejectedLogRecords(), p.GetErrorMessage()
		},
	}
	tracesSignal = signal{
		path:     "/v1/traces",
		method:   "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
		response: func() proto.Message { return new(coltracepb.ExportTraceServiceResponse) },
		rejected: func(m proto.Message) (int64, string) {
			p := m.(*coltracepb.ExportTraceServiceResponse).GetPartialSuccess()
			return p.GetRejectedSpans(), p.GetErrorMessage()
		},
	}
)
