// Package metrics shows the tracer's counters to Prometheus. Label values come
// from fixed lists, so the number of series does not depend on traffic.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dnstrace/dnstrace/tracer/pipeline"
)

// Output is what one output of records did.
type Output struct {
	Name             string
	Written, Dropped uint64
}

// Collector reads the counters when Prometheus asks.
type Collector struct {
	Counters func() *pipeline.Counters
	Outputs  func() []Output
}

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("dnstrace_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string) metric {
	return metric{prometheus.NewDesc("dnstrace_"+name, help, nil, nil), prometheus.GaugeValue}
}

var (
	events         = counter("events_total", "Packets that the eBPF programs reported, once for every device they passed.")
	lostEvents     = counter("lost_events_total", "Packets that found a ring buffer full, or a program busy.")
	lostByHook     = counter("hook_lost_events_total", "Lost events by what the program sees: tx, rx, drop.", "hook")
	exchanges      = counter("exchanges_total", "Exchanges by outcome.", "outcome")
	traces         = counter("traces_total", "Traces assembled.")
	findings       = counter("findings_total", "Findings by code.", "code")
	openExchanges  = gauge("open_exchanges", "Exchanges that wait for a response or for their last packets.")
	pendingTraces  = gauge("pending_traces", "Lookups that wait for their parts.")
	evicted        = counter("evicted_total", "Exchanges and lookups passed on early because a table was full.", "table")
	clockSteps     = counter("clock_steps_total", "Steps of the system's time: lookups under way were passed on as they stood.")
	noConnect      = counter("tcp_connects_dropped_total", "Dropped packets that asked for a TCP connection to a DNS port.")
	notDNS         = counter("not_dns_total", "Packets on a DNS port that are no DNS message.")
	orphans        = counter("orphan_responses_total", "Responses, fragments and ICMP errors whose query was not seen.")
	unreadable     = counter("unreadable_segments_total", "TCP segments whose place in the stream is unknown.")
	records        = counter("plugin_records_total", "Records received from CoreDNS.")
	malformed      = counter("plugin_records_malformed_total", "Lines received that are no record.")
	recordsDropped = counter("plugin_records_dropped_total", "Records received and not taken in time.")
	written        = counter("output_records_total", "Records written.", "output")
	outputDropped  = counter("output_records_dropped_total", "Records that an output did not take.", "output")
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
	for hook, v := range n.LostByHook {
		send(lostByHook, v, hook)
	}
	for outcome, v := range n.Exchanges {
		send(exchanges, v, outcome)
	}
	send(traces, n.Traces)
	for code, v := range n.Findings {
		send(findings, v, code)
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
	send(records, n.Receive.Received)
	send(malformed, n.Receive.Malformed)
	send(recordsDropped, n.Receive.Dropped)
	for _, o := range c.Outputs() {
		send(written, o.Written, o.Name)
		send(outputDropped, o.Dropped, o.Name)
	}
}

// Serve answers Prometheus at addr until ctx ends.
func Serve(ctx context.Context, l net.Listener, c Collector) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
