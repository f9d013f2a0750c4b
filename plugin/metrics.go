package dnstrace

import (
	"sync"
	"time"

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

// lookupCounters are the counters of lookups by what the cache said, found once: every query counts.
var lookupCounters = func() map[string]prometheus.Counter {
	all := make(map[string]prometheus.Counter)
	for _, cache := range []string{trace.CacheHit, trace.CacheMiss, trace.CacheStale, trace.CacheNone, ""} {
		all[cache] = lookups.WithLabelValues(orUnknown(cache))
	}
	return all
}()

// count counts a complete record, written or not.
func (rec *record) count() {
	if rec.origin == nil {
		lookupCounters[rec.cache].Inc()
	} else {
		refreshes.WithLabelValues(orUnknown(refreshCause(rec.origin.cache))).Inc()
	}
	for i := range rec.attempts {
		if a := &rec.attempts[i]; a.end != open {
			observers.get(a.address, a.outcome).Observe(time.Duration(a.end - a.began).Seconds())
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return unknownLabel
	}
	return s
}

// attemptObservers are the histograms of attempts by upstream and outcome: looking for them
// by label costs more than all the rest.
type attemptObservers struct {
	mu        sync.RWMutex
	observers map[[2]string]prometheus.Observer
	upstreams map[string]bool // those with a label of their own
}

var observers = attemptObservers{observers: make(map[[2]string]prometheus.Observer), upstreams: make(map[string]bool)}

func (a *attemptObservers) get(upstream, outcome string) prometheus.Observer {
	key := [2]string{upstream, outcome}
	a.mu.RLock()
	o, ok := a.observers[key]
	a.mu.RUnlock()
	if ok {
		return o
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o = attemptDuration.WithLabelValues(a.label(upstream), orUnknown(outcome))
	if a.upstreams[upstream] {
		a.observers[key] = o
	}
	return o
}

// label returns the label of an upstream.
func (a *attemptObservers) label(upstream string) string {
	switch {
	case upstream == "":
		return unknownLabel
	case a.upstreams[upstream]:
		return upstream
	case len(a.upstreams) >= maxUpstreams:
		return otherLabel
	}
	a.upstreams[upstream] = true
	return upstream
}
