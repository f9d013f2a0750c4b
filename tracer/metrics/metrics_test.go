package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/history"
	"github.com/dnstrace/dnstrace/tracer/kube"
	"github.com/dnstrace/dnstrace/tracer/pipeline"
	"github.com/dnstrace/dnstrace/tracer/receive"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

func sample() Collector {
	return Collector{
		Counters: func() *pipeline.Counters {
			return &pipeline.Counters{
				Events: 18, LostEvents: 2, ShedEvents: 7, UnsampledEvents: 11, ReportedShare: 0.25, Discarded: 3, ExchangeBytes: 4096, Omitted: map[string]uint64{"fragments": 6},
				SampledOut: map[string]uint64{"trace": 9}, LostByHook: map[string]uint64{"tx": 2}, Traces: 1, ClockSteps: 1, NoConnect: 4,
				Exchanges: map[string]uint64{trace.OutcomeAnswered: 1},
				Findings:  map[string]uint64{"upstream-timeout": 1},
				Receive:   receive.Stats{Received: 1, Refused: map[string]uint64{"rate": 3}},
			}
		},
		Version: "v1",
		Outputs: func() []Output { return []Output{{Name: "stdout", Written: 3, Dropped: 1, Queued: 2}} },
		Queued:  func() int { return 5 }, Unfiltered: func() uint64 { return 17 },
		Sockets: func() map[string]unixsocket.State {
			return map[string]unixsocket.State{"records": {Rebound: 31, Err: errors.New("read-only")}, "api": {}}
		},
		Cluster: func() *kube.State { return &kube.State{Synced: true, Pods: 21, Failures: 22} },
		History: func() history.Stats {
			return history.Stats{Traces: 7, Bytes: 9, EvictedAge: 11, EvictedShare: 17, Notable: 3}
		}, HistoryBytes: 13,
		Limited: func() map[string]uint64 { return map[string]uint64{"trace": 19} },
	}
}

func TestNamesAreAsPrometheusWants(t *testing.T) {
	for _, c := range []prometheus.Collector{sample(), NewLookups(Options{Clients: true})} {
		problems, err := testutil.CollectAndLint(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Names that were never listed, or that nobody can be asked for now, are not up to date.
func TestNamesAreNotUpToDate(t *testing.T) {
	for _, st := range []kube.State{{}, {Synced: true, Err: "connection refused"}} {
		c := sample()
		c.Cluster = func() *kube.State { return &st }
		const want = "# HELP dnstrace_kubernetes_synced Whether pods, Services and their endpoints were all listed and the API server can be asked now: 1, or 0. " +
			"Only with Kubernetes.\n# TYPE dnstrace_kubernetes_synced gauge\ndnstrace_kubernetes_synced 0\n"
		if err := testutil.CollectAndCompare(c, strings.NewReader(want), "dnstrace_kubernetes_synced"); err != nil {
			t.Errorf("%+v: %v", st, err)
		}
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, sample(), NewLookups(Options{})) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"dnstrace_events_total 18", "dnstrace_lost_events_total 2", `dnstrace_hook_lost_events_total{hook="tx"} 2`,
		`dnstrace_omitted_total{what="fragments"} 6`,
		"dnstrace_shed_events_total 7", "dnstrace_reported_share 0.25", "dnstrace_discarded_exchanges_total 3",
		"dnstrace_kubernetes_synced 1", `dnstrace_kubernetes_objects{kind="pods"} 21`, "dnstrace_kubernetes_request_failures_total 22",
		`dnstrace_sampled_out_total{record="trace"} 9`,
		"dnstrace_clock_steps_total 1", "dnstrace_tcp_connects_dropped_total 4", `dnstrace_exchanges_total{outcome="answered"} 1`,
		`dnstrace_findings_total{code="upstream-timeout"} 1`, `dnstrace_findings_total{code="conntrack-race"} 0`,
		"dnstrace_plugin_records_queued 5", "dnstrace_filter_failed_total 17", `dnstrace_output_records_queued{output="stdout"} 2`, "dnstrace_history_bytes 9", "dnstrace_history_limit_bytes 13",
		`dnstrace_history_evicted_total{cause="age"} 11`, `dnstrace_history_evicted_total{cause="share"} 17`, "dnstrace_history_notable_traces 3",
		`dnstrace_output_records_limited_total{record="trace"} 19`, `dnstrace_table_limit_bytes{table="traces"} 2.3068672e+07`, `dnstrace_table_bytes{table="exchanges"} 4096`,
		`dnstrace_lookups_total{client="local",outcome="unanswered"} 0`, `dnstrace_build_info{version="v1"} 1`,
		`dnstrace_output_records_dropped_total{output="stdout"} 1`,
		`dnstrace_socket_reachable{socket="records"} 0`, `dnstrace_socket_reachable{socket="api"} 1`, `dnstrace_socket_rebound_total{socket="records"} 31`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
