// Command grafana writes the dashboards beside it: JSON that Grafana 10 and later
// import, or that its sidecar loads from a ConfigMap.
//
//	go generate ./deploy/grafana
package main

//go:generate go run .

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
)

func main() {
	for name, d := range all() {
		b, err := d.json()
		if err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// all returns the dashboards by file.
func all() map[string]*dashboard {
	return map[string]*dashboard{
		"lookups.json": lookups(), "clients.json": clients(), "upstreams.json": upstreams(),
		"lookup.json": lookup(), "tracer.json": tracer(),
	}
}

// The data sources are variables, so that a dashboard fits every Grafana.
const (
	fromPrometheus = "prometheus"
	fromLoki       = "loki"
)

// dashboard is rows of panels; Grafana's grid is 24 wide.
type dashboard struct {
	uid, title, description string
	variables               []any
	rows                    [][]panel
}

// panel is a graph, a table or a list of lines.
type panel struct {
	kind, title, description, source, unit string
	queries                                []query
	height                                 int // 0: 8
	links                                  []any
	transformations                        []any
}

// query and what its series are called in the legend.
type query struct{ expr, legend string }

func graph(title, unit, description string, queries ...query) panel {
	return panel{kind: "timeseries", title: title, unit: unit, description: description, source: fromPrometheus, queries: queries}
}

func number(title, unit, description, expr string) panel {
	return panel{kind: "stat", title: title, unit: unit, description: description, source: fromPrometheus, queries: []query{{expr, ""}}, height: 4}
}

// table shows what Loki or Prometheus says at the end of the time that is shown.
func table(source, title, unit, description string, queries ...query) panel {
	return panel{kind: "table", title: title, unit: unit, description: description, source: source, queries: queries, transformations: []any{
		object{"id": "merge", "options": object{}},
		object{"id": "organize", "options": object{"excludeByName": object{"Time": true}}},
	}}
}

// written says which records a panel of Loki can count. The DaemonSet of deploy/base
// writes lookups with a finding alone; a table of volumes would be wrong, not empty.
func (p *panel) written() string {
	if p.source != fromLoki {
		return p.description
	}
	which, expr := "Of the lookups that are written: with deploy/base, those with a finding alone.", p.queries[0].expr
	switch {
	case strings.Contains(expr, `record="exchange"`):
		which = "Needs records of exchanges, which deploy/base does not write: give the tracers --record=exchange,trace and no --filter."
	case strings.Contains(expr, `| rcode="NXDOMAIN"`), strings.Contains(expr, `resolution!=""`):
		which = "Needs healthy lookups too, which deploy/base does not write: give the tracers no --filter."
	}
	return strings.TrimSpace(p.description + " " + which)
}

func lines(title, description, expr string) panel {
	return panel{kind: "logs", title: title, description: description, source: fromLoki, queries: []query{{expr, ""}}, height: 10}
}

type object = map[string]any

func (d *dashboard) json() ([]byte, error) {
	variables := []any{source(fromPrometheus), source(fromLoki)}
	panels, y := []any{}, 0
	for _, row := range d.rows {
		height := 0
		for i := range row {
			p := row[i].json(len(panels)+1, i*24/len(row), y, 24/len(row))
			height = max(height, row[i].rows())
			panels = append(panels, p)
		}
		y += height
	}
	b, err := json.MarshalIndent(object{
		"uid": d.uid, "title": d.title, "description": d.description, "tags": []string{"dns", "dnstrace"},
		"schemaVersion": 39, "editable": true, "timezone": "browser", "refresh": "1m",
		"time":       object{"from": "now-1h", "to": "now"},
		"templating": object{"list": append(variables, d.variables...)},
		"links": []any{object{"type": "dashboards", "tags": []string{"dnstrace"}, "asDropdown": false, "title": "dnstrace", "includeVars": true, "keepTime": true,
			"icon": "external link", "targetBlank": false, "tooltip": ""}},
		"panels": panels,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.uid, err)
	}
	return append(b, '\n'), nil
}

// source is a variable that holds a data source.
func source(kind string) object {
	return object{"name": kind, "type": "datasource", "query": kind, "label": kind, "refresh": 1}
}

func (p *panel) rows() int {
	if p.height == 0 {
		return 8
	}
	return p.height
}

func (p *panel) json(id, x, y, width int) object {
	var targets []any
	for i, q := range p.queries {
		t := object{"refId": string(rune('A' + i)), "expr": q.expr, "datasource": object{"type": p.source, "uid": "${" + p.source + "}"}}
		if q.legend != "" {
			t["legendFormat"] = q.legend
		}
		if p.kind == "table" || p.kind == "stat" {
			t["instant"], t["queryType"] = true, "instant"
			t["range"] = false
			if p.source == fromPrometheus && p.kind == "table" {
				t["format"] = "table"
			}
		}
		targets = append(targets, t)
	}
	defaults := object{"unit": p.unit}
	if p.links != nil {
		defaults["links"] = p.links
	}
	o := object{
		"id": id, "type": p.kind, "title": p.title, "description": p.written(),
		"datasource": object{"type": p.source, "uid": "${" + p.source + "}"}, "targets": targets,
		"gridPos":     object{"x": x, "y": y, "w": width, "h": p.rows()},
		"fieldConfig": object{"defaults": defaults, "overrides": []any{}},
	}
	if p.transformations != nil {
		o["transformations"] = p.transformations
	}
	if p.kind == "logs" {
		o["options"] = object{"showTime": true, "wrapLogMessage": true, "enableLogDetails": true, "sortOrder": "Descending"}
	}
	return o
}
