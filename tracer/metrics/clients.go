package metrics

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// clientKey is a client as its series know it. What is unknown is empty.
type clientKey struct {
	namespace, pod string
	ip             netip.Addr
}

func clientOf(t *trace.Trace) clientKey {
	var k clientKey
	switch {
	case t.Exchange != nil:
		k.ip = t.Exchange.ClientIP
	case t.Query != nil:
		k.ip = t.Query.ClientIP
	}
	if t.Client != nil {
		k.namespace, k.pod = label(t.Client.Namespace), label(t.Client.Pod)
	}
	return k
}

func (k clientKey) labels() []string {
	ip := ""
	if k.ip.IsValid() {
		ip = k.ip.String()
	}
	return []string{k.namespace, k.pod, ip}
}

type clientSeries struct {
	noError, nxDomain, err, unanswered prometheus.Counter
	duration                           prometheus.Observer
}

func (l *Lookups) newClients() *bounded[clientKey, *clientSeries] {
	names := []string{"namespace", "pod", "client_ip"}
	results := l.counter("client_lookups_total", "Lookups of a client, by result: noerror, nxdomain, error (another response code), unanswered. Only with --metrics-labels pod.", append(names, "result")...)
	// No buckets: a histogram for each pod would be 18 series, not two.
	durations := prometheus.NewSummaryVec(prometheus.SummaryOpts{Namespace: namespace, Name: "client_duration_seconds",
		Help: "Time that a client waited for answers. Only with --metrics-labels pod."}, names)
	l.vectors = append(l.vectors, durations)
	open := func(labels []string) *clientSeries {
		of := func(result string) prometheus.Counter {
			return results.WithLabelValues(append(labels[:3:3], result)...)
		}
		return &clientSeries{of(resultNoError), of(resultNXDomain), of(resultError), of(resultUnanswered), durations.WithLabelValues(labels...)}
	}
	drop := func(k clientKey) {
		labels := k.labels()
		results.DeletePartialMatch(prometheus.Labels{"namespace": labels[0], "pod": labels[1], "client_ip": labels[2]})
		durations.DeleteLabelValues(labels...)
	}
	return newBounded(maxClients, func(k clientKey) *clientSeries { return open(k.labels()) }, drop, open([]string{otherLabel, otherLabel, otherLabel}))
}

func (s *clientSeries) observe(t *trace.Trace) {
	switch t.Outcome {
	case trace.OutcomeUnanswered, trace.OutcomeDropped, trace.OutcomeNoResponse:
		if !diagnose.WentOn(t) { // else its client has another answer
			s.unanswered.Inc()
		}
		return
	}
	switch t.RCode {
	case "NOERROR":
		s.noError.Inc()
	case "NXDOMAIN":
		s.nxDomain.Inc()
	default:
		s.err.Inc()
	}
	if t.Duration != nil {
		s.duration.Observe(t.Duration.Duration().Seconds())
	}
}
