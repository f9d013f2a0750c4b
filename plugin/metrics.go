package dnstrace

import (
	"cmp"
	"context"
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
	recordsWritten = newCounter("records_total", "Counter of records written.", "output", "kind")
	recordsDropped = newCounter("records_dropped_total", "Counter of records that an output lost, by cause.", "output", "cause")
	// Of a server, recorded or not.
	lookups     = newCounter("lookups_total", "Counter of queries in the zones, recorded or not, by what the cache said.", ofServer("cache")...)
	refreshes   = newCounter("refreshes_total", "Counter of cache refreshes that queries set off, recorded or not, by cause.", ofServer("cause")...)
	optionsSeen = newCounter("options_total", "Counter of queries with a TRACEPARENT option, by what became of it.", ofServer("result")...)

	attemptDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "attempt_duration_seconds",
		Help:                        "Histogram of the time that finished upstream attempts took.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, ofServer("upstream", "outcome"))
)

func newCounter(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.NewCounterVec(prometheus.CounterOpts{Namespace: plugin.Namespace, Subsystem: pluginName, Name: name, Help: help}, labels)
}

func ofServer(own ...string) []string { return append([]string{"server", "zones", "view"}, own...) }

const (
	// unknownLabel stands for what a record leaves null.
	unknownLabel = "unknown"
	// otherLabel stands for the upstreams beyond maxUpstreams: external plugins may ask any number of them.
	otherLabel   = "other"
	maxUpstreams = 256
)

// serverMetrics are the metrics of the queries of one server to one server block. They are kept, because each query
// counts, and looking up a metric by its labels costs more than all the rest.
type serverMetrics struct {
	options   *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	durations prometheus.ObserverVec
	lookups   map[string]prometheus.Counter // by what the cache said

	mu        sync.Mutex
	attempts  map[[2]string]prometheus.Observer // by upstream and outcome
	upstreams map[string]bool                   // those with a label of their own
}

// metricsOf returns the metrics of the server that has the query of ctx.
func (d *Dnstrace) metricsOf(ctx context.Context) *serverMetrics {
	server := metrics.WithServer(ctx)
	m, ok := d.servers.Load(server)
	if !ok {
		m, _ = d.servers.LoadOrStore(server, newServerMetrics(server, strings.Join(d.zones, ","), metrics.WithView(ctx)))
	}
	return m.(*serverMetrics)
}

func newServerMetrics(server, zones, view string) *serverMetrics {
	of := prometheus.Labels{"server": server, "zones": zones, "view": view}
	m := &serverMetrics{options: optionsSeen.MustCurryWith(of), refreshes: refreshes.MustCurryWith(of), durations: attemptDuration.MustCurryWith(of),
		lookups: make(map[string]prometheus.Counter), attempts: make(map[[2]string]prometheus.Observer), upstreams: make(map[string]bool)}
	for _, cache := range []string{trace.CacheHit, trace.CacheMiss, trace.CacheStale, trace.CacheNone, ""} {
		m.lookups[cache] = lookups.MustCurryWith(of).WithLabelValues(cmp.Or(cache, unknownLabel))
	}
	return m
}

// count counts a closed record, written or not.
func (rec *record) count() {
	m, cache := rec.q.metrics, rec.q.cache
	if rec.isRefresh() {
		m.refreshes.WithLabelValues(cmp.Or(refreshCause(cache), unknownLabel)).Inc()
	} else {
		m.lookups[cache].Inc()
	}
	for _, a := range rec.attempts {
		if a.took != open {
			m.attempt(cmp.Or(a.address, unknownLabel), cmp.Or(a.outcome, unknownLabel)).Observe(time.Duration(a.took).Seconds())
		}
	}
}

func (m *serverMetrics) attempt(upstream, outcome string) prometheus.Observer {
	key := [2]string{upstream, outcome}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.attempts[key]
	switch {
	case ok:
		return o
	case !m.upstreams[upstream] && len(m.upstreams) >= maxUpstreams:
		return m.durations.WithLabelValues(otherLabel, outcome)
	}
	o = m.durations.WithLabelValues(upstream, outcome)
	m.attempts[key], m.upstreams[upstream] = o, true
	return o
}
