package dnstrace

import (
	"sync"

	"github.com/coredns/coredns/plugin"

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
	}, []string{"cache"})
	// refreshes is the counter of work in the background, recorded or not.
	refreshes = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "refreshes_total",
		Help:      "Counter of cache refreshes that queries set off, recorded or not, by cause.",
	}, []string{"cause"})
	// attemptDuration is the histogram of upstream attempts.
	attemptDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "attempt_duration_seconds",
		Help:                        "Histogram of the time that finished upstream attempts took.",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"upstream", "outcome"})
)

const (
	// unknownLabel stands for what a record leaves null.
	unknownLabel = "unknown"
	// otherLabel stands for the upstreams beyond maxUpstreams. They come from the
	// Corefile, but plugins of others may find theirs elsewhere.
	otherLabel   = "other"
	maxUpstreams = 256
)

// Counters of lookups, found once: every query counts.
var (
	lookupsHit     = lookups.WithLabelValues(trace.CacheHit)
	lookupsMiss    = lookups.WithLabelValues(trace.CacheMiss)
	lookupsStale   = lookups.WithLabelValues(trace.CacheStale)
	lookupsNone    = lookups.WithLabelValues(trace.CacheNone)
	lookupsUnknown = lookups.WithLabelValues(unknownLabel)
)

func countLookup(cache string) {
	switch cache {
	case trace.CacheHit:
		lookupsHit.Inc()
	case trace.CacheMiss:
		lookupsMiss.Inc()
	case trace.CacheStale:
		lookupsStale.Inc()
	case trace.CacheNone:
		lookupsNone.Inc()
	default:
		lookupsUnknown.Inc()
	}
}

// attemptKey is the labels of attemptDuration.
type attemptKey struct{ upstream, outcome string }

// count counts what b has loaded.
func (b *builder) count() {
	if b.rec == b.rec.query {
		countLookup(b.rec.cache)
	} else {
		refreshes.WithLabelValues(orUnknown(refreshCause(b.rec.query.cache))).Inc()
	}
	for i := range b.tries {
		if a := &b.tries[i]; a.Duration != nil {
			b.observer(attemptKey{a.Address, a.Outcome}).Observe(a.Duration.Duration().Seconds())
		}
	}
}

// observer returns the histogram of an attempt. Each builder remembers its own,
// because looking for them by label costs more than all the rest.
func (b *builder) observer(key attemptKey) prometheus.Observer {
	o, ok := b.observers[key]
	if !ok {
		o = attemptDuration.WithLabelValues(upstreamLabel(key.upstream), orUnknown(key.outcome))
		if b.observers == nil || len(b.observers) > maxUpstreams {
			b.observers = make(map[attemptKey]prometheus.Observer)
		}
		b.observers[key] = o
	}
	return o
}

func orUnknown(s string) string {
	if s == "" {
		return unknownLabel
	}
	return s
}

var (
	upstreamsMu sync.Mutex
	upstreams   = make(map[string]bool) // those with a label of their own
)

// upstreamLabel returns the label of an upstream.
func upstreamLabel(address string) string {
	upstreamsMu.Lock()
	defer upstreamsMu.Unlock()
	switch {
	case address == "":
		return unknownLabel
	case upstreams[address]:
		return address
	case len(upstreams) >= maxUpstreams:
		return otherLabel
	}
	upstreams[address] = true
	return address
}
