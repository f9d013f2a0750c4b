//go:build otlp

package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// jaeger is a real Jaeger, with its spans in memory.
type jaeger struct {
	otlp  string // URL for OTLP/HTTP
	query string // URL of its query API
}

func startJaeger(t *testing.T, l *lab.Lab) jaeger {
	t.Helper()
	p := freePorts(t, 7)
	addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", p[i]) }
	j := jaeger{"http://" + addr(0), "http://" + addr(1)}
	if _, err := l.Start(lab.Spec{
		Name: "jaeger", Path: built(t, "jaeger"), Env: []string{"OTEL_TRACES_SAMPLER=always_off"}, // of its own work
		Ready: readyHTTP("http://" + addr(2) + "/"), ReadyTimeout: time.Minute,
		Args: []string{"--log-level=warn", "--collector.otlp.http.host-port=" + addr(0), "--query.http-server.host-port=" + addr(1),
			"--admin.http.host-port=" + addr(2), "--collector.otlp.grpc.host-port=" + addr(3), "--query.grpc-server.host-port=" + addr(4),
			"--collector.http-server.host-port=" + addr(5), "--collector.grpc-server.host-port=" + addr(6),
			"--collector.otlp.enabled=true", "--query.max-clock-skew-adjustment=0s"},
	}); err != nil {
		t.Fatal(err)
	}
	return j
}

// built returns the path of a program that `make test-otlp` builds.
func built(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v; `make test-otlp` builds it", err)
	}
	return path
}

func readyHTTP(url string) lab.Ready {
	return func(ctx context.Context, _ *lab.Process) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s says %s", url, resp.Status)
		}
		return nil
	}
}

// collectorConfig takes OTLP in the clear over HTTP and with TLS over gRPC, and
// sends spans to Jaeger and logs to Loki.
const collectorConfig = `receivers:
  otlp:
    protocols:
      http: {endpoint: "127.0.0.1:%[1]d"}
      grpc: {endpoint: "127.0.0.1:%[2]d", tls: {cert_file: %[3]s/cert.pem, key_file: %[3]s/key.pem}}
exporters:
  otlp_http/jaeger: {endpoint: "%[4]s"}
  otlp_http/loki: {endpoint: "%[5]s/otlp"}
service:
  telemetry: {metrics: {level: none}, logs: {level: warn}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_http/jaeger]}
    logs: {receivers: [otlp], exporters: [otlp_http/loki]}
`

// collector is a real OpenTelemetry Collector.
type collector struct {
	*lab.Process
	http, grpcs string // URLs
	cert        string // of its authority, a file
}

// startOTLPCollector runs one between the tracer and its backends.
func startOTLPCollector(t *testing.T, l *lab.Lab, jaeger, loki string) collector {
	t.Helper()
	p := freePorts(t, 2)
	dir := filepath.Join(l.Dir(), "otelcol")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, dir)
	file := filepath.Join(dir, "otelcol.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, collectorConfig, p[0], p[1], dir, jaeger, loki), 0o600); err != nil {
		t.Fatal(err)
	}
	accepts := func(ctx context.Context, _ *lab.Process) error {
		for _, port := range p {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			_ = c.Close()
		}
		return nil
	}
	process, err := l.Start(lab.Spec{Name: "otelcol", Path: built(t, "otelcol"), Args: []string{"--config=file:" + file}, Ready: accepts, ReadyTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	// By name, so that it has to be resolved.
	return collector{process, fmt.Sprintf("http://127.0.0.1:%d", p[0]), fmt.Sprintf("grpcs://localhost:%d", p[1]), filepath.Join(dir, "cert.pem")}
}

// writeCertificate writes a certificate for localhost that is its own authority.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// jaegerSpan is a span as Jaeger's query API gives it.
type jaegerSpan struct {
	SpanID        string `json:"spanID"`
	OperationName string `json:"operationName"`
	References    []struct {
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	} `json:"references"`
	StartTime int64       `json:"startTime"` // microseconds
	Duration  int64       `json:"duration"`
	Tags      []jaegerTag `json:"tags"`
	Logs      []struct {
		Fields []jaegerTag `json:"fields"`
	} `json:"logs"`
	Warnings  []string `json:"warnings"` // an unknown parent, a second span of one id, ...
	ProcessID string   `json:"processID"`
	process   []jaegerTag
}

type jaegerTag struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

func (s *jaegerSpan) tag(key string) string { return tag(s.Tags, key) }

func tag(tags []jaegerTag, key string) string {
	for _, t := range tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// events counts the events of a span by their names.
func (s *jaegerSpan) events() map[string]int {
	n := map[string]int{}
	for _, l := range s.Logs {
		n[tag(l.Fields, "event")]++
	}
	return n
}

// spans waits for n spans of a trace, and returns them by id.
func (j jaeger) spans(t *testing.T, id trace.TraceID, n int) map[string]jaegerSpan {
	t.Helper()
	var found struct {
		Data []struct {
			Spans     []jaegerSpan `json:"spans"`
			Processes map[string]struct {
				ServiceName string      `json:"serviceName"`
				Tags        []jaegerTag `json:"tags"`
			} `json:"processes"`
		} `json:"data"`
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		getJSON(t, j.query+"/api/traces/"+id.String(), &found)
		if len(found.Data) == 0 || len(found.Data[0].Spans) < n {
			continue
		}
		all := map[string]jaegerSpan{}
		for _, s := range found.Data[0].Spans {
			p := found.Data[0].Processes[s.ProcessID]
			s.process = append(p.Tags, jaegerTag{"service.name", p.ServiceName})
			for _, w := range s.Warnings {
				// CoreDNS is done with a query only after its client has the answer.
				if !strings.HasPrefix(w, "clock skew adjustment disabled") {
					t.Errorf("span %s: %s", s.OperationName, w)
				}
			}
			all[s.SpanID] = s
		}
		if len(all) != n || len(found.Data[0].Spans) != n {
			t.Errorf("%s: %d spans with %d ids, expected %d", id, len(found.Data[0].Spans), len(all), n)
		}
		return all
	}
	t.Fatalf("%s: Jaeger has %+v, expected %d spans", id, found, n)
	return nil
}

// sendSpan sends a span as an application would.
func (j jaeger) sendSpan(t *testing.T, p trace.Traceparent, name string, start, end time.Time) {
	t.Helper()
	body := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"application"}}]},
		"scopeSpans":[{"spans":[{"traceId":%q,"spanId":%q,"name":%q,"startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`,
		p.TraceID, p.SpanID, name, start.UnixNano(), end.UnixNano())
	resp, err := http.Post(j.otlp+"/v1/traces", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("Jaeger says %s", resp.Status)
	}
}

// logEntry is a line of Loki and what is kept beside it.
type logEntry struct {
	labels map[string]string // structured metadata among them
	line   string
}

// logs waits for n lines of a LogQL query.
func logs(t *testing.T, loki, query string, n int) []logEntry {
	t.Helper()
	var found struct {
		Data struct {
			Result []struct {
				Stream map[string]string `json:"stream"`
				Values [][2]string       `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	var all []logEntry
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		getJSON(t, loki+"/loki/api/v1/query_range?query="+url.QueryEscape(query), &found)
		all = nil
		for _, s := range found.Data.Result {
			for _, v := range s.Values {
				all = append(all, logEntry{s.Stream, v[1]})
			}
		}
		if len(all) >= n {
			return all
		}
	}
	t.Fatalf("%s: Loki has %+v, expected %d lines", query, all, n)
	return nil
}

// getJSON reads an answer; one that is no success leaves v as it is.
func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}
