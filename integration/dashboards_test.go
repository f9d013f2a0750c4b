//go:build dashboards

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.yaml.in/yaml/v3"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// dashboardQuery is one query of a dashboard.
type dashboardQuery struct{ dashboard, panel, description, source, expr string }

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
				Title, Description string
				Targets            []struct {
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
				all = append(all, dashboardQuery{filepath.Base(file), p.Title, p.Description, q.Datasource.Type, q.Expr})
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
		all = append(all, dashboardQuery{"docs/logql.md", strings.SplitN(m[1], "\n", 2)[0], "", "loki", m[1]})
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

// startAsDeployed starts a second tracer, with the arguments of the DaemonSet, and
// returns the file that stands for its log.
func startAsDeployed(t *testing.T, r *rig, socket string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "deploy", "base", "daemonset.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Spec struct {
			Template struct {
				Spec struct{ Containers []struct{ Args []string } }
			}
		}
	}
	if err := yaml.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	path, err := r.DnstracePath()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Dir(), "deployed.jsonl")
	args := append(set.Spec.Template.Spec.Containers[0].Args, onlyIn(r.Lab, labHosts...)...)
	args = append(args, "--listen", socket, "--api", socket+".api", "--output", "file:"+file, "--metrics", "", "--kubernetes", "off", "--timeout", "2s")
	if _, err := r.Start(lab.Spec{Name: "deployed", Path: path, Args: args, Ready: lab.ReadyLine("dnstrace: ready")}); err != nil {
		t.Fatal(err)
	}
	return file
}

// bringsData asks one query, with its variables replaced, of Prometheus or of what
// Loki has of a cluster.
func bringsData(t *testing.T, q dashboardQuery, values *strings.Replacer, prometheus string, since time.Duration, loki, cluster string) {
	t.Helper()
	expr := values.Replace(q.expr)
	if q.source == "loki" {
		expr = strings.ReplaceAll(expr, `{job="dnstrace"`, fmt.Sprintf(`{job="dnstrace",cluster=%q`, cluster))
	}
	if m := regexp.MustCompile(`\$\w+`).FindString(expr); m != "" {
		t.Errorf("%s, %s: the variable %s is unknown", q.dashboard, q.panel, m)
		return
	}
	var err error
	data := false
	switch q.source {
	case "prometheus":
		var found []promResult
		found, err = askPrometheus(t, prometheus, expr, since)
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

// Every query of the dashboards and of docs/logql.md is asked of a real Prometheus,
// which reads a real tracer, and of a real Loki, to which promtail brought what was
// recorded; each brings data. So it does of what a tracer with the DaemonSet's
// arguments writes, but for those that need records which that leaves out: they say so.
func TestEveryQueryBringsData(t *testing.T) {
	addr := freeAddr(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	var deployed string
	r := newFaultRigInLab(t, func(l *lab.Lab) string {
		socket := filepath.Join(l.Dir(), "deployed.sock")
		deployed = startAsDeployed(t, &rig{l, t}, socket)
		return corefile(l, fmt.Sprintf("dnstrace {\n output unix %s\n output unix %s\n output file %s\n}", l.RecordSocket(), socket, pluginRecords(l)))
	}, "--timeout", "2s", "--metrics", addr, "--metrics-labels", "pod", "--kubernetes", kubeconfig)
	prometheus := startPrometheus(t, r.Lab, addr, nil)
	began := time.Now()
	id := day(r, 3)
	r.settled("www.r2.search.test", 8)
	last := fmt.Sprintf("n2.r2-%v.dropped.test.", lab.Responses)
	lost := r.trace(last).TraceID.String()
	time.Sleep(2 * time.Second) // a scrape
	for end := time.Now().Add(patience); !slices.ContainsFunc(readRecords(t, deployed), func(rec trace.Record) bool {
		tr, ok := rec.(*trace.Trace)
		return ok && tr.QName == last
	}); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the tracer with the DaemonSet's arguments has no record of %s\n%s", last, r.Outputs())
		}
	}

	loki := startLoki(t, r.Lab)
	for cluster, files := range map[string]map[string]string{
		"all":  {tracerPod: r.RecordFile(), coreDNSPod: pluginRecords(r.Lab)},
		"base": {tracerPod: deployed},
	} {
		pods, records := writePodLogs(t, r.rig, cluster, files)
		startPromtail(t, r.Lab, loki, pods, cluster)
		shippedAll(t, r.rig, loki, cluster, records)
	}
	leftOut := regexp.MustCompile(`record="(exchange|query)"|\| rcode="NXDOMAIN"|resolution!=""`)
	for cluster, of := range map[string]struct{ id, name string }{"all": {id, "www.example.com."}, "base": {lost, last}} {
		values := strings.NewReplacer("$__range", "1h", "$__rate_interval", "30s", "$trace_id", of.id, "TRACE-ID", of.id, "www.example.com.", of.name, "[5m]", "[1h]", "[10m]", "[1h]")
		for _, q := range append(dashboardQueries(t), pageQueries(t)...) {
			switch {
			case cluster == "base" && q.source == "prometheus":
			case cluster == "base" && leftOut.MatchString(q.expr):
				if q.description != "" && !strings.Contains(q.description, "which deploy/base does not write") {
					t.Errorf("%s, %s needs what deploy/base does not write, and does not say so", q.dashboard, q.panel)
				}
			default:
				bringsData(t, q, values, prometheus, time.Since(began), loki, cluster)
			}
		}
	}
}
