package otlp

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Prefix of an output that is sent with OTLP, before the URL.
const Prefix = "otlp:"

// Forms of the URL, for error messages.
const forms = "expected http://HOST[:4318], https://, grpc://HOST[:4317] or grpcs://"

// endpoint is where records go.
type endpoint struct {
	scheme       string // http, https, grpc, grpcs
	host         string // with port
	path         string // of HTTP, before that of the signal
	logs, traces bool
}

// parseEndpoint reads the URL of a collector. As in the OpenTelemetry
// specification, its path is completed with that of the signal; a path that ends
// with the one of a signal is that signal's alone, also with gRPC, for a backend
// that takes no other.
func parseEndpoint(raw string) (endpoint, error) {
	var e endpoint
	u, err := url.Parse(raw)
	if err != nil {
		// Its text would repeat the URL, and with it a password.
		return e, fmt.Errorf("not a URL: %s", forms)
	}
	port := ""
	switch u.Scheme {
	case "http", "https":
		port = "4318"
	case "grpc", "grpcs":
		port = "4317"
	default:
		return e, fmt.Errorf("scheme %q: %s", u.Scheme, forms)
	}
	switch {
	case u.Hostname() == "":
		return e, fmt.Errorf("no host: %s", forms)
	case u.User != nil:
		return e, errors.New("user and password do not belong in a URL that metrics show: set OTEL_EXPORTER_OTLP_HEADERS, such as Authorization=Basic%20WORD")
	case u.RawQuery != "" || u.Fragment != "":
		return e, fmt.Errorf("nothing may follow the path: %s", forms)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return e, fmt.Errorf("port %q: expected 1 to 65535", port)
	}
	e = endpoint{scheme: u.Scheme, host: net.JoinHostPort(u.Hostname(), port), path: strings.TrimSuffix(u.Path, "/"), logs: true, traces: true}
	if path, ok := strings.CutSuffix(e.path, logsSignal.path); ok {
		e.path, e.traces = path, false
	} else if path, ok := strings.CutSuffix(e.path, tracesSignal.path); ok {
		e.path, e.logs = path, false
	}
	if e.grpc() && e.path != "" {
		return e, fmt.Errorf("path %s: gRPC has none; %s or %s chooses a signal", u.Path, logsSignal.path, tracesSignal.path)
	}
	return e, nil
}

func (e endpoint) grpc() bool { return strings.HasPrefix(e.scheme, "grpc") }

func (e endpoint) secure() bool { return strings.HasSuffix(e.scheme, "s") }

// url returns the address of a signal.
func (e endpoint) url(s signal) string { return e.scheme + "://" + e.host + e.path + s.path }
