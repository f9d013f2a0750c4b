//go:build dashboards

package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// nativeHistograms makes Prometheus take those, and leave the classic ones out.
const nativeHistograms = "--enable-feature=native-histograms"

// startPrometheus runs Debian's Prometheus, which reads the metrics of a tracer
// every second, with rules or none, and returns its address.
func startPrometheus(t *testing.T, l *lab.Lab, tracer string, rules []string, more ...string) string {
	t.Helper()
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: dnstrace, static_configs: [{targets: ['%s']}]}]
`, strings.Join(rules, ", "), tracer)
	file := filepath.Join(l.Dir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	base := "http://" + addr
	args := append([]string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(l.Dir(), "tsdb"), "--web.listen-address=" + addr, "--log.level=warn"}, more...)
	if _, err := l.Start(lab.Spec{Name: "prometheus", Path: "prometheus", Args: args, Ready: lab.ReadyHTTP(base + "/-/ready"), ReadyTimeout: time.Minute}); err != nil {
		t.Fatalf("%v (of the Debian package prometheus)", err)
	}
	return base
}

// promResult is a series of Prometheus.
type promResult struct {
	Metric map[string]string
	Values [][]any
	Value  []any
}

// askPrometheus returns the series of a query over the last while.
func askPrometheus(t *testing.T, base, query string, last time.Duration) ([]promResult, error) {
	t.Helper()
	now := time.Now()
	form := url.Values{"query": {query}, "start": {unixSeconds(now.Add(-last))}, "end": {unixSeconds(now)}, "step": {"1"}}
	req, err := http.NewRequest(http.MethodGet, base+"/api/v1/query_range?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return results[promResult](req)
}

func unixSeconds(at time.Time) string {
	return strconv.FormatFloat(float64(at.UnixMilli())/1e3, 'f', 3, 64)
}

// hasNumbers tells whether a series has any.
func (p *promResult) hasNumbers() bool {
	for _, v := range p.Values {
		if v[1] != "NaN" {
			return true
		}
	}
	return false
}

// alertWait is how long an alert may take: the windows of the rules as they are in
// this test, and what the tracer waits for before it reports a lookup.
const alertWait = 40 * time.Second

// hasten writes rules with windows of seconds in the place of minutes, so that a
// fault of a few seconds is what one of a quarter of an hour is in a cluster.
func hasten(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	var files []string
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		files = append(files, hastened(t, l, name))
	}
	return files
}

func hastened(t *testing.T, l *lab.Lab, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", name))
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`\[(5|10)m\]`).ReplaceAll(b, []byte("[20s]"))
	b = regexp.MustCompile(`for: \d+m`).ReplaceAll(b, []byte("for: 1s"))
	file := filepath.Join(l.Dir(), name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// firing waits until an alert fires; behind its name may be labels, in braces.
func firing(t *testing.T, r *rig, base, alert string) {
	t.Helper()
	name, labels, _ := strings.Cut(strings.TrimSuffix(alert, "}"), "{")
	query := fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",%s}`, name, labels)
	for end := time.Now().Add(alertWait); ; time.Sleep(500 * time.Millisecond) {
		found, err := askPrometheus(t, base, query, 2*time.Second)
		if len(found) > 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s does not fire: %v\n%s", alert, err, r.Outputs())
			return
		}
	}
}
