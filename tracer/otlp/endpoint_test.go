package otlp

import (
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct{ url, logs, traces string }{
		{"http://collector", "http://collector:4318/v1/logs", "http://collector:4318/v1/traces"},
		{"https://collector:1234/", "https://collector:1234/v1/logs", "https://collector:1234/v1/traces"},
		{"http://loki:3100/otlp", "http://loki:3100/otlp/v1/logs", "http://loki:3100/otlp/v1/traces"},
		{"http://loki:3100/otlp/v1/logs", "http://loki:3100/otlp/v1/logs", ""},
		{"https://tempo/v1/traces/", "", "https://tempo:4318/v1/traces"},
		{"grpc://collector", "grpc://collector:4317/v1/logs", "grpc://collector:4317/v1/traces"},
		{"grpcs://[fd00::1]:99/v1/traces", "", "grpcs://[fd00::1]:99/v1/traces"},
	} {
		e, err := parseEndpoint(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		logs, traces := "", ""
		if e.logs {
			logs = e.url(logsSignal)
		}
		if e.traces {
			traces = e.url(tracesSignal)
		}
		if logs != tt.logs || traces != tt.traces {
			t.Errorf("%s: logs to %q and traces to %q", tt.url, logs, traces)
		}
	}
}

// A wrong URL stops the start, and no password of it is shown.
func TestWrongEndpoints(t *testing.T) {
	for url, want := range map[string]string{
		"":                             `scheme "": expected http://HOST[:4318]`,
		"collector:4318":               `scheme "collector": expected`,
		"udp://collector":              `scheme "udp": expected`,
		"http://":                      "no host",
		"http://:4318":                 "no host",
		"http://collector:0":           `port "0"`,
		"http://collector:70000":       `port "70000"`,
		"http://a b/":                  "not a URL",
		"http://me:secret@collector":   "OTEL_EXPORTER_OTLP_HEADERS",
		"http://me:secret@collector:x": "not a URL",
		"http://collector?x=1":         "nothing may follow the path",
		"grpc://collector/otlp":        "gRPC has none",
	} {
		_, _, err := Open(Config{URL: url, Report: func(string) {}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("it shows a password: %v", err)
		}
	}
}

func TestWrongEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS: expected key=value"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "key=secret%", `at key "key"`},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "expected gzip or none"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "expected milliseconds above 0"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", "no such file"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/proc/self/stat", "expected PEM"},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere", "expected both or none"},
		{"OTEL_RESOURCE_ATTRIBUTES", "a", "OTEL_RESOURCE_ATTRIBUTES: expected key=value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			_, _, err := Open(Config{URL: "http://collector", Report: func(string) {}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.HasPrefix(tt.value, "secret") && strings.Contains(err.Error(), "=secret") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestIdentityOfTheSender(t *testing.T) {
	env := map[string]string{
		"OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=prod%20eu, service.version=9,service.name=x", "OTEL_SERVICE_NAME": "dns", "NODE_NAME": "node7",
	}
	id, err := newIdentity(func(name string) string { return env[name] }, "1.2.3", "host")
	if err != nil {
		t.Fatal(err)
	}
	got := drawAttributes(id.resource().GetAttributes())
	if want := " host.name=host k8s.cluster.name=prod eu k8s.node.name=node7 service.name=dns service.version=9"; got != want || id.node() != "node7" {
		t.Errorf("%s, node %s", got, id.node())
	}
	got = drawAttributes(id.labelled().resource().GetAttributes())
	if want := " cluster=prod eu component=tracer host.name=host job=dnstrace k8s.cluster.name=prod eu k8s.node.name=node7 node=node7 service.name=dns service.version=9"; got != want {
		t.Errorf("with labels%s", got)
	}
}
