// Package prometheus tests the rules in this folder with Prometheus' own promtool.
package prometheus

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

type rules struct {
	Groups []struct {
		Rules []struct {
			Record, Alert, Expr, For string
			Labels, Annotations      map[string]string
		}
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// promtool returns what it prints.
func promtool(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v (it is in the Debian package prometheus)\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "recording.yaml", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")
}

// pods are what Kubernetes tells Prometheus of its pods.
const pods = `static_configs:
      - {targets: [a], labels: {__meta_kubernetes_namespace: dnstrace, __meta_kubernetes_pod_label_app_kubernetes_io_name: dnstrace, __meta_kubernetes_pod_name: dnstrace-x7k2p, __meta_kubernetes_pod_ip: 10.0.0.1, __meta_kubernetes_pod_node_name: node1}}
      - {targets: [b], labels: {__meta_kubernetes_namespace: kube-system, __meta_kubernetes_pod_label_k8s_app: kube-dns, __meta_kubernetes_pod_name: coredns-m7d49, __meta_kubernetes_pod_ip: 10.0.0.2, __meta_kubernetes_pod_node_name: node1}}
      - {targets: [c], labels: {__meta_kubernetes_namespace: kube-system, __meta_kubernetes_pod_label_k8s_app: node-local-dns, __meta_kubernetes_pod_name: node-local-dns-zq8vv, __meta_kubernetes_pod_ip: 10.0.0.3, __meta_kubernetes_pod_node_name: node2}}
      - {targets: [d], labels: {__meta_kubernetes_namespace: demo, __meta_kubernetes_pod_label_k8s_app: kube-dns, __meta_kubernetes_pod_name: impostor, __meta_kubernetes_pod_ip: 10.0.0.4, __meta_kubernetes_pod_node_name: node2}}`

// Debian builds Prometheus without Kubernetes: pods are listed in its place. Each job
// keeps those that it is for, under the address and the labels that the rules and
// dashboards go by.
func TestScrapeConfiguration(t *testing.T) {
	b, err := os.ReadFile("scrape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "kubernetes_sd_configs: [{role: pod}]", pods)
	if text == string(b) {
		t.Fatal("scrape.yaml does not ask Kubernetes for pods")
	}
	dir := t.TempDir()
	for _, rules := range []string{"recording.yaml", "alerts.yaml"} {
		if b, err = os.ReadFile(rules); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, rules), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", file)
	for job, want := range map[string][]string{
		"dnstrace": {"10.0.0.1:9464 dnstrace node1 node1"},
		"coredns":  {"10.0.0.2:9153 coredns coredns-m7d49 node1", "10.0.0.3:9153 coredns node-local-dns-zq8vv node2"},
	} {
		var targets []struct {
			Labels map[string]string `json:"labels"`
		}
		if err := json.Unmarshal(promtool(t, "check", "service-discovery", "--timeout=3s", file, job), &targets); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, target := range targets {
			if l := target.Labels; l["__address__"] != "" {
				got = append(got, strings.Join([]string{l["__address__"], l["job"], l["instance"], l["node"]}, " "))
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("the job %s scrapes %q, expected %q", job, got, want)
		}
	}
}

// Every alert is raised by a test of alerts_test.yaml, is silent in a healthy
// cluster, and has its section in the page that it links to.
func TestAlertsAreProvedAndExplained(t *testing.T) {
	var alerts rules
	read(t, "alerts.yaml", &alerts)
	var proofs struct {
		Tests []struct {
			Name  string
			Alert []struct {
				Name   string           `yaml:"alertname"`
				Raised []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	read(t, "alerts_test.yaml", &proofs)
	raised, silent := map[string]bool{}, map[string]bool{}
	for _, p := range proofs.Tests {
		for _, a := range p.Alert {
			switch {
			case len(a.Raised) > 0:
				raised[a.Name] = true
			case strings.HasPrefix(p.Name, "a healthy cluster"):
				silent[a.Name] = true
			}
		}
	}
	page, err := os.ReadFile("../../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## (\S+)$`).FindAllStringSubmatch(string(page), -1)
	var names []string
	for _, r := range alerts.Groups[0].Rules {
		names = append(names, r.Alert)
		if !raised[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: raised by a test: %t, silent in a healthy cluster: %t", r.Alert, raised[r.Alert], silent[r.Alert])
		}
		link := "https://github.com/dnstrace/dnstrace/blob/main/docs/alerts.md#" + strings.ToLower(r.Alert)
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Annotations["runbook_url"] != link {
			t.Errorf("%s: labels %v, annotations %v", r.Alert, r.Labels, r.Annotations)
		}
	}
	var explained []string
	for _, s := range sections {
		explained = append(explained, s[1])
	}
	if !slices.Equal(explained, names) {
		t.Errorf("docs/alerts.md has sections\n%v, the alerts are\n%v", explained, names)
	}
}

// Every finding that the tracer can have raises an alert: of its own, or by what it
// does to answers and upstreams.
func TestEveryFindingIsAlertedOn(t *testing.T) {
	var alerts rules
	read(t, "alerts.yaml", &alerts)
	covered := []string{
		"upstream-timeout", "upstream-error", "upstream-unhealthy", "slow-upstream", "type-ignored", // DNSTraceUpstream*
		"refused-by-server", "concurrency-limit", // DNSTraceRefusedHigh
		"cached-failure", // DNSTraceServfailHigh
	}
	matchers := regexp.MustCompile(`code=~"([^"]+)"`)
	for _, r := range alerts.Groups[0].Rules {
		for _, m := range matchers.FindAllStringSubmatch(r.Expr, -1) {
			code := regexp.MustCompile("^(?:" + m[1] + ")$")
			for _, c := range diagnose.Codes {
				if code.MatchString(c) {
					covered = append(covered, c)
				}
			}
		}
	}
	slices.Sort(covered)
	if want := slices.Sorted(slices.Values(diagnose.Codes)); !slices.Equal(covered, want) {
		t.Errorf("alerted on\n%v, the findings are\n%v", covered, want)
	}
}

// A misspelt metric raises nothing, and promtool's tests, whose series are written by
// hand, do not notice: every metric in the rules is one that is served.
func TestRulesNameMetricsThatExist(t *testing.T) {
	served := map[string]bool{}
	for _, page := range []string{"../../docs/metrics.md", "../../plugin/README.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)^[|*] `((?:coredns_)?dnstrace_\\w+)").FindAllStringSubmatch(string(b), -1) {
			served[m[1]] = true
		}
	}
	named := 0
	for _, file := range []string{"recording.yaml", "alerts.yaml"} {
		var all rules
		read(t, file, &all)
		for _, r := range all.Groups[0].Rules {
			// Behind a colon is a name that a rule gives.
			for _, m := range regexp.MustCompile(`(?:^|[^:\w])((?:coredns_)?dnstrace_\w+)`).FindAllStringSubmatch(r.Expr, -1) {
				named++
				if !served[strings.TrimSuffix(m[1], "_bucket")] {
					t.Errorf("%s%s: %s is served by nobody", r.Record, r.Alert, m[1])
				}
			}
		}
	}
	if named < 30 {
		t.Errorf("%d metrics are named", named)
	}
}
