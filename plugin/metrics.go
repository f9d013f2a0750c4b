package dnstrace

import (
	"github.com/coredns/coredns/plugin"

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
)
