package metrics

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// metricName is a name of a metric in a text or a query; one with a letter, a colon
// or an underscore before it is another's, such as a recording rule's.
var metricName = regexp.MustCompile(`(?:^|[^a-zA-Z0-9_:])(` + namespace + `_[a-z_]*[a-z])(?:[^a-z_:]|$)`)

// A metric that a page, a rule or a dashboard names is one that is served: who
// copies the query gets an answer.
func TestNamedMetricsAreServed(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	l.Observe(failover())
	families, err := newRegistry(sample(), l).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var served []string
	for _, f := range families {
		served = append(served, f.GetName())
		switch f.GetType() {
		case dto.MetricType_HISTOGRAM:
			served = append(served, f.GetName()+"_bucket", f.GetName()+"_sum", f.GetName()+"_count")
		case dto.MetricType_SUMMARY:
			served = append(served, f.GetName()+"_sum", f.GetName()+"_count")
		}
	}
	named := map[string]bool{}
	for _, path := range texts(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metricName.FindAllSubmatch(text, -1) {
			name := string(m[1])
			named[name] = true
			if !slices.Contains(served, name) {
				t.Errorf("%s names %s, which is not served", path, name)
			}
		}
	}
	if len(named) < 30 {
		t.Errorf("only %d metrics are named: are these the texts?", len(named))
	}
}

// texts are the pages for users, and what is deployed.
func texts(t *testing.T) []string {
	t.Helper()
	const top = "../../"
	var paths []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(top + pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	if err := filepath.WalkDir(top+"deploy", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, ".go") {
			paths = append(paths, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return paths
}
