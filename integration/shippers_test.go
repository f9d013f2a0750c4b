//go:build dashboards

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// pieceBytes is how much of a line goes into one line of a container's log. Runtimes
// split at 16 KiB; here every record is split, to see it put together again.
const pieceBytes = 1500

// Pods whose logs the lab writes, as the kubelet names their folders.
const (
	tracerPod  = "kube-system_dnstrace-x7k2p_3b9f1a52-4a0d-4c5e-9d7a-0d8c5a1b2c3d/dnstrace"
	coreDNSPod = "kube-system_node-local-dns-zq8vv_8f14e45f-ceea-467f-a0e6-6c6f4d2b1a0e/coredns"
)

// writePodLogs writes files of records as the log files of pods, in the format of CRI,
// and returns their folder, one for each cluster, and how many records they hold. Of a tracer's, what else the machine looked up meanwhile is left out.
func writePodLogs(t *testing.T, r *rig, cluster string, files map[string]string) (dir string, records int) {
	t.Helper()
	dir = filepath.Join(r.Dir(), cluster, "pods")
	ours := strings.TrimSuffix(r.Host(lab.Node).Netns, lab.Node) // of every namespace of this lab
	for pod, from := range files {
		in, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		now := time.Now().UTC().Format(time.RFC3339Nano)
		fmt.Fprintf(&out, "%s stdout F [INFO] plugin/reload: Running configuration\n", now)
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := lines.Text()
			if pod == tracerPod && !strings.Contains(line, ours) {
				continue
			}
			records++
			for ; len(line) > pieceBytes; line = line[pieceBytes:] {
				fmt.Fprintf(&out, "%s stdout P %s\n", now, line[:pieceBytes])
			}
			fmt.Fprintf(&out, "%s stdout F %s\n", now, line)
		}
		in.Close()
		file := filepath.Join(dir, pod, "0.log")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, records
}

// edited writes a configuration of deploy/ into the lab's folder, with what is of
// this machine put in the place of what is of a cluster.
func edited(t *testing.T, l *lab.Lab, path string, pairs ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !bytes.Contains(b, []byte(pairs[i])) {
			t.Fatalf("deploy/%s has no %q", path, pairs[i])
		}
	}
	file := filepath.Join(l.Dir(), filepath.Base(path))
	if err := os.WriteFile(file, []byte(strings.NewReplacer(pairs...).Replace(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startPromtail ships the pods' logs to Loki with deploy/logs/promtail.yaml.
func startPromtail(t *testing.T, l *lab.Lab, loki, pods, cluster string) {
	t.Helper()
	positions := filepath.Join(l.Dir(), "promtail-"+cluster)
	file := edited(t, l, "logs/promtail.yaml", "http://loki:3100", loki, "/var/log/pods", pods, "/run/promtail", positions,
		"http_listen_port: 9080", "http_listen_port: "+strconv.Itoa(lab.FreePorts(t, 1)[0]))
	if err := os.Mkdir(positions, 0o700); err != nil {
		t.Fatal(err)
	}
	startShipper(t, l, "promtail", []string{"CLUSTER=" + cluster, "NODE_NAME=node-1"}, "-config.expand-env=true", "-config.file="+file)
}

// startCollector does so with deploy/logs/otel-collector.yaml. Files that were there
// before are read too, and the collector's own metrics are off: their port is fixed.
func startCollector(t *testing.T, l *lab.Lab, loki, pods, cluster string) {
	t.Helper()
	file := edited(t, l, "logs/otel-collector.yaml", "http://loki:3100", loki, "/var/log/pods", pods, "include_file_path: true", "include_file_path: true\n    start_at: beginning",
		"${env:CLUSTER}", cluster, "${env:NODE_NAME}", "node-1", "service:\n", "service:\n  telemetry: {metrics: {level: none}}\n")
	startShipper(t, l, "otelcol", nil, "--config", file)
}

func startShipper(t *testing.T, l *lab.Lab, name string, env []string, args ...string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Start(lab.Spec{Name: name, Path: "env", Args: slices.Concat(env, []string{path}, args)}); err != nil {
		t.Fatalf("%v; `make bin/%s` builds it", err, name)
	}
}

// lokiResult is a series, or a stream with its lines.
type lokiResult struct {
	Metric, Stream map[string]string
	Value          []any
	Values         [][]any
}

// askLoki asks for lines of the last hour, or for a number now.
func askLoki(t *testing.T, base, query string) ([]lokiResult, error) {
	t.Helper()
	form := url.Values{"query": {query}, "limit": {"5000"}}
	path := "/loki/api/v1/query_range"
	if isMetric(query) {
		path = "/loki/api/v1/query"
	} else {
		form.Set("since", "1h")
	}
	req, err := http.NewRequest(http.MethodGet, base+path+"?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Labels and structured metadata apart.
	req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	return results[lokiResult](req)
}

// isMetric tells a query for numbers from one for lines.
func isMetric(query string) bool { return !strings.HasPrefix(strings.TrimSpace(query), "{") }

// results returns what is in an answer of Prometheus or Loki.
func results[R any](req *http.Request) ([]R, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var a struct{ Data struct{ Result []R } }
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, body)
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("%w: %s", err, body)
	}
	return a.Data.Result, nil
}

// shippedAll waits until Loki has so many records of a cluster.
func shippedAll(t *testing.T, r *rig, loki, cluster string, records int) {
	t.Helper()
	query := fmt.Sprintf(`sum(count_over_time({job="dnstrace",cluster=%q}[1h]))`, cluster)
	got := ""
	for end := time.Now().Add(patience); got != strconv.Itoa(records); time.Sleep(200 * time.Millisecond) {
		found, err := askLoki(t, loki, query)
		if len(found) == 1 {
			got = found[0].Value[1].(string)
		}
		if time.Now().After(end) {
			t.Fatalf("Loki has %q records of %d: %v\n%s", got, records, err, r.Outputs())
		}
	}
}

// Each shipper brings every record to Loki, whole, with the few labels that all
// queries select by, and with what is without number as structured metadata; and
// `--loki` reads it.
func TestShippers(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.answered(lab.Query{Name: "www.example.com."})
	r.trace("www.example.com.")
	inPod := filepath.Join(r.Dir(), "pod.jsonl")
	if err := os.WriteFile(inPod, ofPod(t, r.RecordFile()), 0o600); err != nil {
		t.Fatal(err)
	}
	pods, records := writePodLogs(t, r.rig, "lab", map[string]string{tracerPod: inPod, coreDNSPod: pluginRecords(r.Lab)})
	loki := startLoki(t, r.Lab)
	for name, start := range map[string]func(t *testing.T, l *lab.Lab, loki, pods, cluster string){"promtail": startPromtail, "otelcol": startCollector} {
		t.Run(name, func(t *testing.T) {
			start(t, r.Lab, loki, pods, name)
			shippedAll(t, r.rig, loki, name, records)
			streams, err := askLoki(t, loki, fmt.Sprintf(`{job="dnstrace",cluster=%q} | qname="www.example.com."`, name))
			if err != nil || len(streams) == 0 {
				t.Fatal(streams, err)
			}
			components, ofPods := map[string]int{}, 0
			for _, s := range streams {
				labels := s.Stream
				components[labels["component"]]++
				delete(labels, "component")
				delete(labels, "service_name") // Loki's own
				if got, want := fmt.Sprint(labels), fmt.Sprint(map[string]string{"job": "dnstrace", "cluster": name, "namespace": "kube-system", "node": "node-1"}); got != want {
					t.Errorf("labels %s, expected %s", got, want)
				}
				for _, v := range s.Values {
					checkEntry(t, v)
					if strings.Contains(v[1].(string), podRecord) {
						ofPods++
					}
				}
			}
			if len(components) != 2 || ofPods == 0 {
				t.Errorf("components %v, %d records of a pod", components, ofPods)
			}
			out, err := r.Dnstrace(context.Background(), "explain", "www.example.com", "-o", "json", "--loki", loki, "--loki-query", fmt.Sprintf(`{job="dnstrace",cluster=%q}`, name))
			if err != nil {
				t.Fatal(err)
			}
			rec, err := trace.Decode([]byte(strings.TrimSpace(out)))
			if tr, ok := rec.(*trace.Trace); !ok || tr.Exchange == nil || tr.Query == nil {
				t.Errorf("not whole: %v %s", err, out)
			}
		})
	}
}

// podRecord is the client of a lookup from a pod of Kubernetes, of which the lab has none.
const (
	podRecord    = `"client":{"pod":"web-5d9f7c","namespace":"demo",`
	podlessStart = `"client":{"pod":null,"namespace":null,`
)

// ofPod returns a file's records as a tracer in a cluster writes them: their clients
// are a pod.
func ofPod(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	named := bytes.ReplaceAll(b, []byte(podlessStart), []byte(podRecord))
	if bytes.Equal(named, b) {
		t.Fatalf("no record knows its client: %s", b)
	}
	return named
}

// checkEntry wants a line that is a record, at the record's time, with its ids and
// name beside it.
func checkEntry(t *testing.T, v []any) {
	t.Helper()
	line := v[1].(string)
	rec, err := trace.Decode([]byte(line))
	if err != nil {
		t.Errorf("not a record: %v: %s", err, line)
		return
	}
	if at := strconv.FormatInt(rec.Head().Time.UnixNano(), 10); v[0] != at {
		t.Errorf("at %v, the record says %s", v[0], at)
	}
	metadata, _ := v[2].(map[string]any)["structuredMetadata"].(map[string]any)
	want := map[string]string{"record": rec.Kind(), "trace_id": rec.Head().TraceID.String(), "qname": "www.example.com."}
	if q, ok := rec.(*trace.Query); ok {
		want["span_id"] = q.SpanID.String()
	}
	if strings.Contains(line, podRecord) {
		want["pod"] = "web-5d9f7c"
	}
	for key, value := range want {
		if metadata[key] != value {
			t.Errorf("%s: %s is %v, expected %s", rec.Kind(), key, metadata[key], value)
		}
	}
}

// Alloy is not run: its own parser reads the configuration, whose stages are those of
// promtail's, which is.
func TestAlloyIsAsPromtail(t *testing.T) {
	alloy, err := filepath.Abs(filepath.Join("..", "deploy", "logs", "alloy.alloy"))
	if err != nil {
		t.Fatal(err)
	}
	parse := exec.Command("go", "run", ".", alloy)
	parse.Dir = "alloy"
	out, err := parse.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var promtail struct {
		Jobs []struct {
			Stages []map[string]any `yaml:"pipeline_stages"`
		} `yaml:"scrape_configs"`
	}
	b, err := os.ReadFile(filepath.Join("..", "deploy", "logs", "promtail.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &promtail); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, stage := range promtail.Jobs[0].Stages {
		for name := range stage {
			want = append(want, strings.Replace(name, "labeldrop", "label_drop", 1))
		}
	}
	if got := strings.Fields(string(out)); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("stages %v, promtail's are %v", got, want)
	}
}
