package otlp

import (
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// Config of the outputs of one URL.
type Config struct {
	URL     string // without Prefix
	Version string // of this program
	// Report takes a line that says that delivery fails, or works again. It is
	// called from other goroutines.
	Report func(string)
}

// Open opens the outputs of a URL: logs, traces or both. A receiver that is absent
// is no error. The caller must close each.
func Open(c Config) (*Logs, *Traces, error) {
	e, err := parseEndpoint(c.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("output %s: %w", Prefix, err)
	}
	env, err := readEnvironment(os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // unknown is absent
	}
	id, err := newIdentity(os.Getenv, c.Version, host)
	if err != nil {
		return nil, nil, err
	}
	var logs *Logs
	var traces *Traces
	if e.logs {
		t, err := newTransport(e, logsSignal, env, c.Version)
		if err != nil {
			return nil, nil, err
		}
		logs = newLogs(id, Prefix+e.url(logsSignal), t, c.Report)
	}
	if e.traces {
		t, err := newTransport(e, tracesSignal, env, c.Version)
		if err != nil {
			return nil, nil, err
		}
		traces = newTraces(id, Prefix+e.url(tracesSignal), t, c.Report)
	}
	return logs, traces, nil
}

func newTransport(e endpoint, s signal, env environment, version string) (transport, error) {
	agent := "dnstrace/" + version
	if e.grpc() {
		return newGRPCTransport(e, s, env, agent)
	}
	return newHTTPTransport(e, s, env, agent)
}

// Logs sends every record as a log record.
type Logs struct {
	*sender[entry]
}

func newLogs(id identity, name string, t transport, report func(string)) *Logs {
	resource, scope := id.labelled().resource(), id.scope()
	l := &Logs{newSender(logsSignal, name, t, report, func(batch []entry) proto.Message {
		return &collogspb.ExportLogsServiceRequest{ResourceLogs: []*logspb.ResourceLogs{{
			Resource: resource, ScopeLogs: []*logspb.ScopeLogs{{Scope: scope, LogRecords: logRecords(batch)}},
		}}}
	})}
	go l.run()
	return l
}

// Write queues a record and its line of JSON, and keeps neither. It does not block,
// unless after Last.
func (l *Logs) Write(r trace.Record, line []byte) {
	l.put(len(line), func() entry { return newEntry(r, line, time.Now()) })
}

// Traces sends every trace record as spans.
type Traces struct {
	*sender[*trace.Trace]
}

func newTraces(id identity, name string, t transport, report func(string)) *Traces {
	s := &Traces{newSender(tracesSignal, name, t, report, func(batch []*trace.Trace) proto.Message {
		return &coltracepb.ExportTraceServiceRequest{ResourceSpans: resourceSpans(id, batch)}
	})}
	go s.run()
	return s
}

// Write queues a trace, of whose record it keeps a copy; other records make no
// spans. It does not block, unless after Last.
func (s *Traces) Write(r trace.Record, line []byte) {
	if t, ok := r.(*trace.Trace); ok {
		s.put(len(line), func() *trace.Trace { return cloneTrace(t) })
	}
}
