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
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

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
	p := lab.FreePorts(t, 2)
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
	path, err := lab.Binary("otelcol")
	if err != nil {
		t.Fatal(err)
	}
	process, err := l.Start(lab.Spec{Name: "otelcol", Path: path, Args: []string{"--config=file:" + file}, Ready: accepts, ReadyTimeout: time.Minute})
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
