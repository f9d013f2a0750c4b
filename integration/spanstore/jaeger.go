// Package spanstore runs a real Jaeger for tests in the lab, and reads traces back from it.
package spanstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// patience is how long spans may take: the tracer's timeout, what it then waits for late
// records, and a slow machine.
const patience = 40 * time.Second

// Jaeger is a real Jaeger, with its spans in memory.
type Jaeger struct {
	OTLP  string // URL for OTLP/HTTP
	query string // URL of its query API
}

// StartJaeger runs bin/jaeger in the host's own namespace.
func StartJaeger(tb testing.TB, l *lab.Lab) Jaeger {
	tb.Helper()
	path, err := lab.Binary("jaeger")
	if err != nil {
		tb.Fatal(err)
	}
	p := lab.FreePorts(tb, 7)
	addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", p[i]) }
	if _, err := l.Start(lab.Spec{
		Name: "jaeger", Path: path, Env: []string{"OTEL_TRACES_SAMPLER=always_off"}, // of its own work
		Ready: lab.ReadyHTTP("http://" + addr(2) + "/"), ReadyTimeout: time.Minute,
		Args: []string{"--log-level=warn", "--collector.otlp.http.host-port=" + addr(0), "--query.http-server.host-port=" + addr(1),
			"--admin.http.host-port=" + addr(2), "--collector.otlp.grpc.host-port=" + addr(3), "--query.grpc-server.host-port=" + addr(4),
			"--collector.http-server.host-port=" + addr(5), "--collector.grpc-server.host-port=" + addr(6),
			"--collector.otlp.enabled=true", "--query.max-clock-skew-adjustment=0s"},
	}); err != nil {
		tb.Fatal(err)
	}
	return Jaeger{"http://" + addr(0), "http://" + addr(1)}
}

// Span is a span as Jaeger's query API gives it.
type Span struct {
	SpanID        string `json:"spanID"`
	OperationName string `json:"operationName"`
	References    []struct {
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	} `json:"references"`
	StartTime int64 `json:"startTime"` // microseconds
	Duration  int64 `json:"duration"`
	Tags      Tags  `json:"tags"`
	Logs      []struct {
		Fields Tags `json:"fields"`
	} `json:"logs"`
	Warnings  []string `json:"warnings"` // an unknown parent, a second span of one id, ...
	ProcessID string   `json:"processID"`
	Process   Tags     `json:"-"` // of its resource
}

// Tags are attributes.
type Tags []struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// Get returns a value as text, which is empty where there is none.
func (t Tags) Get(key string) string {
	for _, tag := range t {
		if tag.Key == key {
			return fmt.Sprint(tag.Value)
		}
	}
	return ""
}

// Parent is the id of the span above, empty where there is none.
func (s *Span) Parent() string {
	above := ""
	for _, ref := range s.References {
		above = ref.SpanID
	}
	return above
}

// Events counts the events of a span by their names.
func (s *Span) Events() map[string]int {
	n := map[string]int{}
	for _, l := range s.Logs {
		n[l.Fields.Get("event")]++
	}
	return n
}

// found is an answer of the query API.
type found struct {
	Data []struct {
		Spans     []Span `json:"spans"`
		Processes map[string]struct {
			ServiceName string `json:"serviceName"`
			Tags        Tags   `json:"tags"`
		} `json:"processes"`
	} `json:"data"`
}

// Spans waits for n spans of a trace, and returns them by id.
func (j Jaeger) Spans(tb testing.TB, id trace.TraceID, n int) map[string]Span {
	tb.Helper()
	var f found
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := j.get("/api/traces/"+id.String(), &f); err != nil {
			tb.Fatal(err)
		}
		if len(f.Data) == 0 || len(f.Data[0].Spans) < n {
			continue
		}
		all := map[string]Span{}
		for _, s := range f.Data[0].Spans {
			p := f.Data[0].Processes[s.ProcessID]
			s.Process = append(p.Tags, Tags{{"service.name", p.ServiceName}}...)
			for _, w := range s.Warnings {
				// CoreDNS is done with a query only after its client has the answer.
				if !strings.HasPrefix(w, "clock skew adjustment disabled") {
					tb.Errorf("span %s: %s", s.OperationName, w)
				}
			}
			all[s.SpanID] = s
		}
		if len(all) != n || len(f.Data[0].Spans) != n {
			tb.Errorf("%s: %d spans with %d ids, expected %d", id, len(f.Data[0].Spans), len(all), n)
		}
		return all
	}
	tb.Fatalf("%s: Jaeger has %+v, expected %d spans", id, f, n)
	return nil
}

// get reads an answer; one that is no success, as of a trace that is not there yet,
// leaves v as it is.
func (j Jaeger) get(path string, v any) error {
	resp, err := http.Get(j.query + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// Send sends spans as an application would: a request of OTLP/HTTP of that content type.
func (j Jaeger) Send(contentType string, request []byte) error {
	resp, err := http.Post(j.OTLP+"/v1/traces", contentType, bytes.NewReader(request))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("jaeger says %s: %s", resp.Status, body)
	}
	return nil
}
