package metrics

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// page lists every metric.
const page = "../../docs/metrics.md"

const (
	tableBegin = "<!-- metrics -->\n"
	tableEnd   = "<!-- /metrics -->\n"
)

// The page lists every metric that is served, with its kind and labels, and none
// that is not.
func TestPageIsComplete(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	l.Observe(failover())
	families, err := newRegistry(sample(), l).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| metric | kind | labels | what |\n|---|---|---|---|\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace+"_") {
			continue
		}
		var labels []string
		for _, p := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+p.GetName()+"`")
		}
		slices.Sort(labels)
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp())
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(have), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	want := before + tableBegin + table.String() + tableEnd + after
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(have) {
		t.Errorf("%s is not up to date (DNSTRACE_UPDATE=1 writes it); expected:\n%s", page, table.String())
	}
}
