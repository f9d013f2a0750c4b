// Package prometheus tests the rules in this folder with Prometheus' own promtool.
package prometheus

import (
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

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v (it is in the Debian package prometheus)\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "recording.yaml", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")
}

// Debian builds Prometheus without Kubernetes: the rest of the example is checked.
func TestScrapeConfiguration(t *testing.T) {
	b, err := os.ReadFile("scrape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "kubernetes_sd_configs: [{role: pod}]", "static_configs: [{targets: ['127.0.0.1:9464']}]", 1)
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
		"upstream-timeout", "upstream-error", "upstream-unhealthy", "slow-upstream", // DNSTraceUpstream*
		"refused-by-server", // DNSTraceRefusedHigh
	}
	matchers := regexp.MustCompile(`code=~"([^"]+)"`)
	for _, r := range alerts.Groups[0].Rules {
		if m := matchers.FindStringSubmatch(r.Expr); m != nil {
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
