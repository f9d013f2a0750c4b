package dnstrace

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Causes of a lost record.
const (
	causeQueueFull  = "queue_full"  // the output is slower than the queries
	causeNoReceiver = "no_receiver" // nobody listens on the socket
	causeWriteError = "write_error" // the output failed
	causeClosed     = "closed"      // CoreDNS stops
)

var (
	// recordsWritten is the counter of records written.
	recordsWritten = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "records_total",
		Help:      "Counter of records written.",
	}, []string{"output", "kind"})
	// recordsDropped is the counter of records that were lost.
	recordsDropped = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "records_dropped_total",
		Help:      "Counter of records that an output lost, by cause.",
	}, []string{"output", "cause"})
	// lookups is the counter of queries, recorded or not.
	lookups = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "lookups_total",
		Help:      "Counter of queries in the zones, recorded or not, by what the cache said.",
	}, []string{"server", "zones", "view", "cache"})
	// refreshes is the counter of work in the background, recorded or not.
	refreshes = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "refreshes_total",
		Help:      "Counter of cache refreshes that queries set off, recorded or not, by cause.",
	}, []string{"server", "zones", "view", "cause"})
	// attemptDuration is the histogram of upstream attempts.
	attemptDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "attempt_duration_seconds",
		Help:                        "Histogram of the time that finished upstream attempts took.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"server", "zones", "view", "upstream", "outcome"})
	// optionsSeen is the counter of queries that came with the option.
	optionsSeen = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "options_total",
		Help:      "Counter of queries with a TRACEPARENT option, by what became of it.",
	}, []string{"server", "zones", "view", "result"})
)

const (
	// unknownLabel stands for what a record leaves null.
	unknownLabel = "unknown"
	// otherLabel stands for the upstreams beyond maxUpstreams. They come from the
	// Corefile, but plugins of others may find theirs elsewhere.
	otherLabel   = "other"
	maxUpstreams = 256
)

// serverMetrics are what the queries of one server to one server block count into, each found
// once: every query counts, and looking for a metric by its labels costs more than all the rest.
type serverMetrics struct {
	labels  []string                      // server, zones and view
	lookups map[string]prometheus.Counter // by what the cache said

	mu        sync.RWMutex
	attempts  map[[2]string]prometheus.Observer // by upstream and outcome
	upstreams map[string]bool                   // those with a label of their own
}

// metricsOf returns the metrics of the server that has the query of ctx.
func (d *Dnstrace) metricsOf(ctx context.Context) *serverMetrics {
	server := metrics.WithServer(ctx)
	if m, ok := d.servers.Load(server); ok {
		return m.(*serverMetrics)
	}
	m, _ := d.servers.LoadOrStore(server, newServerMetrics(server, strings.Join(d.zones, ","), d.view))
	return m.(*serverMetrics)
}

func newServerMetrics(server, zones, view string) *serverMetrics {
	m := &serverMetrics{labels: []string{server, zones, view}, lookups: make(map[string]prometheus.Counter),
		attempts: make(map[[2]string]prometheus.Observer), upstreams: make(map[string]bool)}
	for _, cache := range []string{trace.CacheHit, trace.CacheMiss, trace.CacheStale, trace.CacheNone, ""} {
		m.lookups[cache] = lookups.WithLabelValues(m.with(orUnknown(cache))...)
	}
	return m
}

// with returns the values of the labels, those of a metric's own last.
func (m *serverMetrics) with(own ...string) []string { return slices.Concat(m.labels, own) }

// count counts a complete record, written or not.
func (rec *record) count() {
	m := rec.metrics
	if rec.origin == nil {
		m.lookups[rec.cache].Inc()
	} else {
		m = rec.origin.metrics
		refreshes.WithLabelValues(m.with(orUnknown(refreshCause(rec.origin.cache)))...).Inc()
	}
	for i := range rec.attempts {
		if a := &rec.attempts[i]; a.end != open {
			m.attempt(a.address, a.outcome).Observe(time.Duration(a.end - a.began).Seconds())
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return unknownLabel
	}
	return s
}

func (m *serverMetrics) attempt(upstream, outcome string) prometheus.Observer {
	key := [2]string{upstream, outcome}
	m.mu.RLock()
	o, ok := m.attempts[key]
	m.mu.RUnlock()
	if ok {
		return o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o = attemptDuration.WithLabelValues(m.with(m.label(upstream), orUnknown(outcome))...)
	if m.upstreams[upstream] {
		m.attempts[key] = o
	}
	return o
}

// label returns the label of an upstream.
func (m *serverMetrics) label(upstream string) string {
	switch {
	case upstream == "":
		return unknownLabel
	case m.upstreams[upstream]:
		return upstream
	case len(m.upstreams) >= maxUpstreams:
		return otherLabel
	}
	m.upstreams[upstream] = true
	return upstream
}
