package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The committed files are what the code gives, and there are no others.
func TestFilesAreUpToDate(t *testing.T) {
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(all()) {
		t.Errorf("%v, expected %d", files, len(all()))
	}
	for name, d := range all() {
		want, err := d.json()
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not up to date: go generate ./deploy/grafana", name)
		}
	}
}

// What Grafana needs to import a dashboard: ids that are its own, panels that do
// not overlap, a query in each.
func TestDashboardsAreWhole(t *testing.T) {
	uids := map[string]bool{}
	for name, d := range all() {
		b, err := d.json()
		if err != nil {
			t.Fatal(err)
		}
		var model struct {
			UID, Title string
			Panels     []struct {
				Title   string
				GridPos struct{ X, Y, W, H int }
				Targets []struct{ RefID, Expr string }
			}
		}
		if err := json.Unmarshal(b, &model); err != nil {
			t.Fatal(err)
		}
		if uids[model.UID] || model.Title == "" {
			t.Errorf("%s: uid %s, title %q", name, model.UID, model.Title)
		}
		uids[model.UID] = true
		taken := map[[2]int]string{}
		for _, p := range model.Panels {
			if p.Title == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q has %d queries", name, p.Title, len(p.Targets))
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q lies over %q at %d,%d", name, p.Title, other, x, y)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

// The links to spans are queries by the trace id, each of a data source that the
// dashboard lets its user choose.
func TestLinksToSpans(t *testing.T) {
	var backends []string
	for _, p := range lookup().rows[0] {
		for _, l := range p.links {
			_, panes, _ := strings.Cut(l.(object)["url"].(string), "panes=")
			var explore map[string]struct {
				Datasource string
				Queries    []struct {
					Datasource struct{ Type, UID string }
					Query      string
				}
			}
			if err := json.Unmarshal([]byte(panes), &explore); err != nil {
				t.Fatalf("%v: %s", err, panes)
			}
			q := explore["t"].Queries[0]
			variable := "${" + q.Datasource.Type + "}"
			if explore["t"].Datasource != variable || q.Datasource.UID != variable || q.Query != "${trace_id}" {
				t.Errorf("%s", panes)
			}
			if !slices.ContainsFunc(lookup().variables, func(v any) bool { return v.(object)["query"] == q.Datasource.Type }) {
				t.Errorf("no variable for %s", q.Datasource.Type)
			}
			backends = append(backends, q.Datasource.Type)
		}
	}
	if !slices.Equal(backends, []string{"tempo", "jaeger"}) {
		t.Errorf("links to %v", backends)
	}
}
