package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// environment is what the standard variables of OpenTelemetry's exporters say
// (OpenTelemetry Protocol Exporter, Configuration Options). The endpoint is not
// among them: it is in the flag.
type environment struct {
	headers map[string]string
	gzip    bool
	timeout time.Duration // of one request
	tls     *tls.Config
}

// requestTimeout is the specification's default.
const requestTimeout = 10 * time.Second

func readEnvironment(getenv func(string) string) (environment, error) {
	e := environment{gzip: true, timeout: requestTimeout}
	var err error
	if e.headers, err = keyValues(getenv, "OTEL_EXPORTER_OTLP_HEADERS"); err != nil {
		return e, err
	}
	switch v := getenv("OTEL_EXPORTER_OTLP_COMPRESSION"); v {
	case "", "gzip":
	case "none":
		e.gzip = false
	default:
		return e, fmt.Errorf("OTEL_EXPORTER_OTLP_COMPRESSION=%s: expected gzip or none", v)
	}
	if v := getenv("OTEL_EXPORTER_OTLP_TIMEOUT"); v != "" {
		ms, err := strconv.ParseUint(v, 10, 31)
		if err != nil || ms == 0 {
			return e, fmt.Errorf("OTEL_EXPORTER_OTLP_TIMEOUT=%s: expected milliseconds above 0", v)
		}
		e.timeout = time.Duration(ms) * time.Millisecond
	}
	e.tls, err = tlsConfig(getenv)
	return e, err
}

// tlsConfig reads the certificates now: later the tracer may lack the privilege.
func tlsConfig(getenv func(string) string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := getenv("OTEL_EXPORTER_OTLP_CERTIFICATE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: no certificate in %s: expected PEM", path)
		}
	}
	cert, key := getenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"), getenv("OTEL_EXPORTER_OTLP_CLIENT_KEY")
	switch {
	case cert == "" && key == "":
		return c, nil
	case cert == "" || key == "":
		return nil, errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: expected both or none")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// isToken tells whether a key is one (RFC 9110, section 5.6.2).
func isToken(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// keyValues reads a variable of the form key=value,key=value, whose values are
// percent-encoded (W3C Baggage).
func keyValues(getenv func(string) string, name string) (map[string]string, error) {
	pairs := map[string]string{}
	for n, pair := range strings.Split(getenv(name), ",") {
		n++
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		switch {
		case !ok || !isToken(key):
			// Without what stands there, which may be a password.
			return nil, fmt.Errorf("%s: expected key=value,key=value with percent-encoded values: pair %d has no key", name, n)
		case err != nil:
			return nil, fmt.Errorf("%s: expected key=value,key=value with percent-encoded values, at key %q", name, key)
		}
		pairs[key] = decoded
	}
	return pairs, nil
}
