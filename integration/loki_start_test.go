//go:build loki || dashboards || otlp

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// lokiConfig is a single Loki on loopback with everything in one folder.
const lokiConfig = `auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %d, grpc_listen_address: 127.0.0.1, grpc_listen_port: %d, log_level: warn}
common:
  instance_addr: 127.0.0.1
  path_prefix: %[3]s
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[3]s/chunks, rules_directory: %[3]s/rules}}
schema_config:
  configs: [{from: 2024-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]
ingester: {lifecycler: {min_ready_duration: 0s, final_sleep: 0s}}
analytics: {reporting_enabled: false}
`

// startLoki runs bin/loki, with the labels of deploy/logs and more flags, and returns its
// address.
func startLoki(t *testing.T, l *lab.Lab, more ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", "loki"))
	if err != nil {
		t.Fatal(err)
	}
	// The lab removes it after Loki has stopped.
	dir := filepath.Join(l.Dir(), "loki")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ports := lab.FreePorts(t, 2)
	file := filepath.Join(dir, "loki.yaml")
	labels, err := os.ReadFile(filepath.Join("..", "deploy", "logs", "loki-otlp.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(fmt.Appendf(nil, lokiConfig, ports[0], ports[1], dir), labels...), 0o600); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if _, err := l.Start(lab.Spec{Name: "loki", Path: path, Args: append([]string{"-config.file=" + file, "-target=all"}, more...), Ready: lab.ReadyHTTP(url + "/ready"), ReadyTimeout: 2 * time.Minute}); err != nil {
		t.Fatalf("%v; `make bin/loki` builds it", err)
	}
	return url
}
