// Package metrics exports to Prometheus what clients experienced ([Lookups]) and the state
// of the tracer itself ([Collector]). Label values come from fixed lists, or are bounded in
// number, so the number of series does not depend on traffic.
// docs/metrics.md lists all of them.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
	"github.com/dnstrace/dnstrace/tracer/exchange"
	"github.com/dnstrace/dnstrace/tracer/history"
	"github.com/dnstrace/dnstrace/tracer/kube"
	"github.com/dnstrace/dnstrace/tracer/pipeline"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

const namespace = "dnstrace"

// Bounds of the endpoint, which everybody may reach where --metrics is not on loopback.
const (
	// maxConns bounds the concurrent connections: some Prometheuses with a few each. For one
	// more, the oldest is closed.
	maxConns = 32
	// maxHeader is more than any Prometheus sends.
	maxHeader = 16 << 10
	// Timeouts of reading a request, of writing an answer, and of an idle connection.
	// Prometheus asks every 15 s by default, and reconnects if the connection was closed.
	requestWithin = 5 * time.Second
	answerWithin  = 30 * time.Second
	idleWithin    = 20 * time.Second
)

// Output is what one output of records did.
type Output struct {
	Name                     string
	Written, Dropped, Queued uint64
}

// Collector reads the counters when Prometheus asks. All fields but Cluster are
// needed.
type Collector struct {
	Version  string
	Counters func() *pipeline.Counters
	Outputs  func() []Output
	Queued   func() int // records of CoreDNS that wait to be taken
	Sockets  func() map[string]unixsocket.State
	History  func() history.Stats
	// HistoryBytes is the bound of the memory of finished traces.
	HistoryBytes int
	Unfiltered   func() uint64 // records for which the filter failed
	// Limited returns how many records were not written of clients whose lookups have the
	// same finding again and again, by kind.
	Limited func() map[string]uint64
	// Cluster returns what is known of Kubernetes, or nil: there is none.
	Cluster func() *kube.State
}

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.GaugeValue}
}

var (
	events          = counter("events_total", "Packets that the eBPF programs reported, once for every device they passed.")
	lostEvents      = counter("lost_events_total", "Packets that found a ring buffer full, or a program busy.")
	lostByHook      = counter("hook_lost_events_total", "Lost events by what the program sees: tx, rx, drop, delivered, read.", "hook")
	unsampledEvents = counter("unsampled_events_total", "Packets of lookups that --sample-in-kernel left out.")
	shedEvents      = counter("shed_events_total", "Packets of lookups that were left out whole, because the tracer could not follow all.")
	share           = gauge("reported_share", "Share of the lookups that is reported now: 1 unless the tracer cannot follow all.")
	discarded       = counter("discarded_exchanges_total", "Exchanges left out because the reported share changed while they were under way.")
	exchanges       = counter("exchanges_total", "Exchanges by outcome.", "outcome")
	traces          = counter("traces_total", "Traces assembled.")
	sampledOut      = counter("sampled_out_total", "Records of ordinary lookups that --sample left out, by kind.", "record")
	findings        = counter("findings_total", "Findings by code, but for those in doubt since packets may be missing.", "code")
	openExchanges   = gauge("open_exchanges", "Exchanges that wait for a response or for their last packets.")
	pendingTraces   = gauge("pending_traces", "Lookups that wait for their parts.")
	evicted         = counter("evicted_total", "Exchanges and lookups passed on early because a table was full.", "table")
	clockSteps      = counter("clock_steps_total", "Steps of the system's time: lookups under way were passed on as they stood.")
	noConnect       = counter("tcp_connects_dropped_total", "Dropped packets that asked for a TCP connection to a DNS port.")
	notDNS          = counter("not_dns_total", "Packets on a DNS port that are no DNS message, or multicast DNS that asks and answers everybody.")
	orphans         = counter("orphan_responses_total", "Responses, fragments and ICMP errors whose query was not seen.")
	unreadable      = counter("unreadable_segments_total", "TCP segments whose place in the stream is unknown.")
	omitted         = counter("omitted_total", "What was not kept of exchanges that had too much of it, as of a packet in a loop: sightings, fragments, addresses of their client.", "what")
	records         = counter("plugin_records_total", "Records received from CoreDNS.")
	recordsRefused  = counter("plugin_records_refused_total", "Records that were not taken, by reason: malformed, size, field, time, duration, rate, queue, or sender: it is not the server.", "reason")
	unverified      = counter("plugin_records_unverified_total", "Records that are shown alone, since whether their sender is the server is unknown.")
	socketReachable = gauge("socket_reachable", "Whether a unix socket is where CoreDNS (records) or the commands (api) look for it: 1, or 0.", "socket")
	socketRebound   = counter("socket_rebound_total", "How often somebody removed a unix socket's file and it was made again.", "socket")
	written         = counter("output_records_total", "Records written.", "output")
	unfiltered      = counter("filter_failed_total", "Records that were not written since --filter failed on them, or had no time for them.")
	recordsQueued   = gauge("plugin_records_queued", "Records received that wait to be taken.")
	outputDropped   = counter("output_records_dropped_total", "Records that an output did not take.", "output")
	outputLimited   = counter("output_records_limited_total", "Records, by kind, that no output was given, since their client had many with the same finding or failure: findings_total counts these.", "record")
	outputQueued    = gauge("output_records_queued", "Records that wait for an output.", "output")
	tableBytes      = gauge("table_bytes", "Memory that a table takes: exchanges of open_exchanges, traces of pending_traces.", "table")
	tableLimit      = gauge("table_limit_bytes", "Memory that a table may take: what came first is passed on early then (evicted_total).", "table")
	historyTraces   = gauge("history_traces", "Finished traces in memory, for the local API.")
	historyBytes    = gauge("history_bytes", "Memory that the finished traces take.")
	historyLimit    = gauge("history_limit_bytes", "Memory that the finished traces may take.")
	historyNotable  = gauge("history_notable_traces", "Finished traces in memory that failed, were slow or have a finding.")
	historyEvicted  = counter("history_evicted_total", "Finished traces let go, because of their age, because the memory was full, or because it was and their client had more than its share: age, memory, share.", "cause")
	followers       = gauge("api_followers", "Readers of the local API that follow new traces.")
	followersLost   = counter("api_follower_lost_traces_total", "Traces not delivered to a follower that was too slow.")
	clusterSynced   = gauge("kubernetes_synced", "Whether pods, Services and their endpoints were all listed and the API server can be asked now: 1, or 0. Only with Kubernetes.")
	clusterFailures = counter("kubernetes_request_failures_total", "Requests to the Kubernetes API that failed. Only with Kubernetes.")
	clusterObjects  = gauge("kubernetes_objects", "Objects of Kubernetes that are known, by kind: pods (of this node), services (that may speak DNS), endpoints. Only with Kubernetes.", "kind")
	buildInfo       = gauge("build_info", "The version of the tracer; always 1.", "version")
)

// Describe implements prometheus.Collector.
func (c Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	send := func(m metric, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(v), labels...)
	}
	n := c.Counters()
	send(events, n.Events)
	send(lostEvents, n.LostEvents)
	send(shedEvents, n.ShedEvents)
	send(unsampledEvents, n.UnsampledEvents)
	ch <- prometheus.MustNewConstMetric(share.desc, share.kind, n.ReportedShare)
	send(discarded, n.Discarded)
	for hook, v := range n.LostByHook {
		send(lostByHook, v, hook)
	}
	// Including those without events: the first increase of a series that appears with it
	// would not be seen.
	for _, outcome := range []string{trace.OutcomeAnswered, trace.OutcomeUnanswered, trace.OutcomeDropped} {
		send(exchanges, n.Exchanges[outcome], outcome)
	}
	send(traces, n.Traces)
	for record, v := range n.SampledOut {
		send(sampledOut, v, record)
	}
	for _, code := range diagnose.Codes {
		send(findings, n.Findings[code], code)
	}
	send(openExchanges, uint64(n.OpenExchanges))
	send(pendingTraces, uint64(n.PendingTraces))
	send(evicted, n.EvictedExchanges, "exchanges")
	send(evicted, n.EvictedTraces, "traces")
	send(clockSteps, n.ClockSteps)
	send(noConnect, n.NoConnect)
	send(notDNS, n.NotDNS)
	send(orphans, n.Orphans)
	send(unreadable, n.Unreadable)
	for what, v := range n.Omitted {
		send(omitted, v, what)
	}
	send(records, n.Receive.Received)
	for reason, refused := range n.RefusedRecords() {
		send(recordsRefused, refused, reason)
	}
	send(unverified, n.UnverifiedRecords)
	send(recordsQueued, uint64(c.Queued()))
	for socket, state := range c.Sockets() {
		reachable := uint64(1)
		if state.Err != nil {
			reachable = 0
		}
		send(socketReachable, reachable, socket)
		send(socketRebound, state.Rebound, socket)
	}
	send(unfiltered, c.Unfiltered())
	for _, o := range c.Outputs() {
		send(written, o.Written, o.Name)
		send(outputDropped, o.Dropped, o.Name)
		send(outputQueued, o.Queued, o.Name)
	}
	for record, v := range c.Limited() {
		send(outputLimited, v, record)
	}
	send(tableBytes, uint64(n.ExchangeBytes), "exchanges")
	send(tableBytes, uint64(n.TraceBytes), "traces")
	send(tableLimit, exchange.DefaultMaxBytes, "exchanges")
	send(tableLimit, assemble.DefaultMaxBytes, "traces")
	h := c.History()
	send(historyTraces, uint64(h.Traces))
	send(historyNotable, uint64(h.Notable))
	send(historyBytes, uint64(h.Bytes))
	send(historyLimit, uint64(c.HistoryBytes))
	send(historyEvicted, h.EvictedAge, "age")
	send(historyEvicted, h.EvictedBytes, "memory")
	send(historyEvicted, h.EvictedShare, "share")
	send(followers, uint64(h.Subscribers))
	send(followersLost, h.LostQueued)
	send(buildInfo, 1, c.Version)
	if c.Cluster != nil {
		c.cluster(send)
	}
}

// cluster sends what is known of Kubernetes.
func (c Collector) cluster(send func(m metric, v uint64, labels ...string)) {
	st := c.Cluster()
	if st == nil {
		return
	}
	synced := uint64(0)
	if st.Synced && st.Err == "" {
		synced = 1
	}
	send(clusterSynced, synced)
	send(clusterFailures, st.Failures)
	send(clusterObjects, uint64(st.Pods), "pods")
	send(clusterObjects, uint64(st.Services), "services")
	send(clusterObjects, uint64(st.Endpoints), "endpoints")
}

// newRegistry returns what is served, with the collectors of the Go runtime and of the
// process.
func newRegistry(c Collector, l *Lookups) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, l, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Serve answers Prometheus at l until ctx ends.
func Serve(ctx context.Context, l net.Listener, c Collector, lookups *Lookups) error {
	return serve(ctx, l, c, lookups, idleWithin)
}

func serve(ctx context.Context, l net.Listener, c Collector, lookups *Lookups, idle time.Duration) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", newAnswers(newRegistry(c, lookups)))
	srv := &http.Server{Handler: mux, ReadTimeout: requestWithin, WriteTimeout: answerWithin, IdleTimeout: idle, MaxHeaderBytes: maxHeader}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(newCrowded(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
