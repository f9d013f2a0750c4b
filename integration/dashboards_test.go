//go:build dashboards

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// dashboardQuery is one query of a dashboard.
type dashboardQuery struct{ dashboard, panel, source, expr string }

func dashboardQueries(t *testing.T) []dashboardQuery {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "deploy", "grafana", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []dashboardQuery
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct {
					Expr       string
					Datasource struct{ Type string }
				}
			}
		}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				all = append(all, dashboardQuery{filepath.Base(file), p.Title, q.Datasource.Type, q.Expr})
			}
		}
	}
	return all
}

// pageQueries are those of docs/logql.md.
func pageQueries(t *testing.T) []dashboardQuery {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "logql.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []dashboardQuery
	for _, m := range regexp.MustCompile("(?s)```logql\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		all = append(all, dashboardQuery{"docs/logql.md", strings.SplitN(m[1], "\n", 2)[0], "loki", m[1]})
	}
	if len(all) == 0 {
		t.Fatal("docs/logql.md has no query")
	}
	return all
}

// day is what may happen in a cluster in a day: healthy lookups, and of each fault
// some. It returns the trace id of one lookup.
func day(r *faultRig, rounds int) string {
	r.t.Helper()
	for i := range 2 {
		r.Upstream(i).Set("cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError})
		r.Upstream(i).Set("servfail.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure})
	}
	r.SilentUpstream(0, "failover.test.")
	glibc := buildResolver(r.t, "glibc")
	for round := range rounds {
		for range 2 {
			r.answered(lab.Query{Name: "www.example.com."})
		}
		r.together(numbered(5, fmt.Sprintf("r%d.healthy.test.", round)), lab.Query{})
		r.together(numbered(3, fmt.Sprintf("r%d.servfail.test.", round)), lab.Query{})
		r.together(numbered(3, fmt.Sprintf("r%d.failover.test.", round)), lab.Query{Timeout: 5 * time.Second})
		r.resolve("client-a", glibc, fmt.Sprintf("www.r%d.search.test", round), kubernetesResolvConf("demo", ""))
		for _, messages := range []lab.Messages{lab.Queries, lab.Responses} {
			undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: messages, Leg: lab.ClientLeg})
			must(r, undo, err)
			r.together(numbered(3, fmt.Sprintf("r%d-%v.dropped.test.", round, messages)), lab.Query{Timeout: time.Second})
			undo()
		}
	}
	return r.trace("www.example.com.").TraceID.String()
}

// Every query of the dashboards and of docs/logql.md is asked of a real Prometheus,
// which reads a real tracer, and of a real Loki, to which promtail brought what was
// recorded; each brings data.
func TestEveryQueryBringsData(t *testing.T) {
	addr := freeAddr(t)
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s", "--metrics", addr, "--metrics-labels", "pod")
	prometheus := startPrometheus(t, r.Lab, addr, nil)
	began := time.Now()
	id := day(r, 3)
	r.settled("www.r2.search.test", 8)
	last := fmt.Sprintf("n2.r2-%v.dropped.test.", lab.Responses)
	r.trace(last)
	time.Sleep(2 * time.Second) // a scrape

	pods, records := writePodLogs(t, r.rig)
	loki := startLoki(t, r.Lab)
	startPromtail(t, r.Lab, loki, pods, "lab")
	shippedAll(t, r.rig, loki, "lab", records)

	values := strings.NewReplacer("$__range", "1h", "$__rate_interval", "30s", "$trace_id", id, "TRACE-ID", id, "[5m]", "[1h]", "[10m]", "[1h]")
	asked := map[string]int{}
	for _, q := range append(dashboardQueries(t), pageQueries(t)...) {
		asked[q.source]++
		expr := values.Replace(q.expr)
		if m := regexp.MustCompile(`\$\w+`).FindString(expr); m != "" {
			t.Errorf("%s, %s: the variable %s is unknown", q.dashboard, q.panel, m)
			continue
		}
		var err error
		data := false
		switch q.source {
		case "prometheus":
			var found []promResult
			found, err = askPrometheus(t, prometheus, expr, time.Since(began))
			for i := range found {
				data = data || found[i].hasNumbers()
			}
		case "loki":
			var found []lokiResult
			found, err = askLoki(t, loki, expr)
			data = len(found) > 0
		}
		if err != nil || !data {
			t.Errorf("%s, %s brings no data: %v\n%s", q.dashboard, q.panel, err, expr)
		}
	}
	t.Logf("asked %v", asked)
}
