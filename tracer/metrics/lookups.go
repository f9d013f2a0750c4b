package metrics

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// Bounds of the labels whose values come from traffic.
const (
	maxUpstreams = 64  // of one node: those of its servers, and of programs that ask elsewhere
	maxReasons   = 48  // of drops: the kernel has some hundred, few of which befall DNS
	maxClients   = 512 // of one node: twice the pods that the largest nodes run
)

// otherLabel stands for what is beyond a bound, or not in a list.
const otherLabel = "other"

// unknownLabel stands for what a trace does not tell.
const unknownLabel = "unknown"

// Results of a client's lookups and of attempts at upstreams.
const (
	resultOK         = "ok"         // attempt: NOERROR, NXDOMAIN
	resultBadRCode   = "bad_rcode"  // attempt: answered SERVFAIL, REFUSED, ...
	resultNoError    = "noerror"    // client
	resultNXDomain   = "nxdomain"   // client
	resultError      = "error"      // client: another response code; attempt: a network error, or what came could not be taken
	resultTimeout    = "timeout"    // attempt
	resultUnknown    = "unknown"    // attempt: its server does not tell, and its packets were not observed
	resultUnanswered = "unanswered" // client
)

// Options of [NewLookups].
type Options struct {
	Clients bool // tell clients apart: up to 3,000 series more
}

// Lookups counts what clients, servers and upstreams experienced, trace by trace.
// Observe is not safe for concurrent use; it finds every series that it needs without a
// search by label.
type Lookups struct {
	vectors []prometheus.Collector

	outcomes  map[string][sides]prometheus.Counter
	rcodes    map[string][sides]prometheus.Counter
	durations [sides]prometheus.Observer
	server    map[string]prometheus.Observer // by what the cache said
	drops     *bounded[dropKey, prometheus.Counter]
	upstreams *bounded[upstreamKey, *upstreamSeries]
	clients   *bounded[clientKey, *clientSeries] // nil: not distinguished
}

// Where a client is. A lookup from one node to another is seen on both; a sum
// over nodes takes those that are not remote, to count it once.
const (
	sideLocal = iota
	sideRemote
	sideUnknown
	sides
)

var sideNames = [sides]string{sideLocal: "local", sideRemote: "remote", sideUnknown: unknownLabel}

// side tells where a client is: here, where its query was seen to leave it.
func side(t *trace.Trace) int {
	switch {
	case t.Exchange == nil || t.Exchange.Path.Len() == 0:
		return sideUnknown
	case t.Exchange.AtClient():
		return sideLocal
	}
	return sideRemote
}

// outcomes of lookups; rcodes of responses, those that servers use and that IANA
// lists for responses without TSIG.
var (
	lookupOutcomes = []string{trace.OutcomeAnswered, trace.OutcomeUnanswered, trace.OutcomeDropped, trace.OutcomeRefused, trace.OutcomeNoResponse, trace.OutcomeError, otherLabel}
	lookupRCodes   = []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "NOTAUTH", "NOTZONE", "BADVERS", "BADCOOKIE", otherLabel}
	cacheSays      = []string{trace.CacheHit, trace.CacheMiss, trace.CacheStale, trace.CacheNone, unknownLabel}
)

// NewLookups returns Lookups that have counted nothing.
func NewLookups(o Options) *Lookups {
	l := &Lookups{}
	l.outcomes = l.bySide("lookups_total", "Lookups of clients, by outcome and by whether the client is on this node.", "outcome", lookupOutcomes)
	l.rcodes = l.bySide("responses_total", "Responses to clients, by response code and by whether the client is on this node.", "rcode", lookupRCodes)
	durations := l.histogram("lookup_duration_seconds", "Time from a client's query to its response, on the wire at the client's side of this node.", "client")
	for s, name := range sideNames {
		l.durations[s] = durations.WithLabelValues(name)
	}
	server := l.histogram("server_duration_seconds", "Time that CoreDNS took for a query, by what its cache said.", "cache")
	l.server = map[string]prometheus.Observer{}
	for _, says := range cacheSays {
		l.server[says] = server.WithLabelValues(says)
	}
	l.drops = l.newDrops()
	l.upstreams = l.newUpstreams()
	if o.Clients {
		l.clients = l.newClients()
	}
	return l
}

func (l *Lookups) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	l.vectors = append(l.vectors, v)
	return v
}

// histogram is native and classic at once, with the buckets of CoreDNS's own, so
// that both fit on one graph: 250 µs to 8 s.
func (l *Lookups) histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets:                        prometheus.ExponentialBuckets(0.00025, 2, 16),
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 160, // 1 µs to 10 s need 170 at this factor
	}, labels)
	l.vectors = append(l.vectors, v)
	return v
}

// bySide creates every series at once: the first increase of a series that appears with it
// would not be seen.
func (l *Lookups) bySide(name, help, label string, values []string) map[string][sides]prometheus.Counter {
	v := l.counter(name, help, label, "client")
	all := map[string][sides]prometheus.Counter{}
	for _, value := range values {
		var series [sides]prometheus.Counter
		for s, name := range sideNames {
			series[s] = v.WithLabelValues(value, name)
		}
		all[value] = series
	}
	return all
}

// known returns the entry of a value, or of those that are not in the list.
func known[V any](entries map[string]V, value, other string) V {
	if v, ok := entries[value]; ok {
		return v
	}
	return entries[other]
}

// Observe counts a trace. One that replaces another is not counted again: a counter does not
// go back. Nor is an upstream query whose lookup is unknown.
func (l *Lookups) Observe(t *trace.Trace) {
	if t.Replaces || t.Role == trace.RoleUpstream {
		return
	}
	if t.Exchange != nil || t.Query != nil { // else: work that no client waited for
		l.lookup(t)
	}
	for i := range t.Upstreams {
		l.upstream(t, &t.Upstreams[i])
	}
}

func (l *Lookups) lookup(t *trace.Trace) {
	s := side(t)
	known(l.outcomes, t.Outcome, otherLabel)[s].Inc()
	if t.RCode != "" {
		known(l.rcodes, t.RCode, otherLabel)[s].Inc()
	}
	if ex := t.Exchange; ex != nil {
		if ex.Duration != nil {
			l.durations[s].Observe(ex.Duration.Duration().Seconds())
		}
		l.drop(t, ex, false)
	}
	if q := t.Recorded(); q != nil && q.Duration != nil {
		known(l.server, q.Cache, unknownLabel).Observe(q.Duration.Duration().Seconds())
	}
	if l.clients != nil {
		l.clients.get(clientOf(t), t.Time).observe(t)
	}
}

// maxLabel bounds the value of a label that comes from a record. Names of pods and of
// namespaces have 253 bytes at most.
const maxLabel = 256

// label makes a text of a record a valid label value, for which Prometheus requires UTF-8.
func label(s string) string {
	if len(s) <= maxLabel && utf8.ValidString(s) {
		return s
	}
	return oneline.Shorten(s, maxLabel)
}

type dropKey struct {
	upstream bool
	message  string
	reason   string
}

func (l *Lookups) newDrops() *bounded[dropKey, prometheus.Counter] {
	v := l.counter("drops_total", "Packets of lookups that the kernel dropped, by the kernel's reason.", "query", "message", "reason")
	open := func(k dropKey) prometheus.Counter { return v.WithLabelValues(queryOf(k.upstream), k.message, k.reason) }
	drop := func(k dropKey) { v.DeleteLabelValues(queryOf(k.upstream), k.message, k.reason) }
	return newBounded(maxReasons, open, drop, v.WithLabelValues(otherLabel, otherLabel, otherLabel))
}

// queryOf says whose query it was: a client's, or one to an upstream.
func queryOf(upstream bool) string {
	if upstream {
		return "upstream"
	}
	return "client"
}

func (l *Lookups) drop(t *trace.Trace, ex *trace.Exchange, upstream bool) {
	if ex == nil {
		return
	}
	for i := range ex.Drops {
		d := &ex.Drops[i]
		reason := d.Reason
		if reason == "" {
			reason = unknownLabel
		}
		l.drops.get(dropKey{upstream, label(d.Message), label(reason)}, t.Time).Inc()
	}
}

// upstreamKey is an address with a port, or an address in words (`tls://...`).
type upstreamKey struct {
	addr netip.AddrPort
	text string
}

func (k upstreamKey) label() string {
	if k.text != "" {
		return k.text
	}
	return k.addr.String()
}

type upstreamSeries struct {
	ok, badRCode, timeout, err, unknown prometheus.Counter
	duration                            prometheus.Observer
}

func (l *Lookups) newUpstreams() *bounded[upstreamKey, *upstreamSeries] {
	attempts := l.counter("upstream_attempts_total", "Attempts of servers to get an answer from an upstream, by result: ok, bad_rcode (SERVFAIL, REFUSED, ...), timeout, error (refused, unreachable, answered with what cannot be taken, or failed in a way that CoreDNS does not tell), unknown.", "upstream", "result")
	durations := l.histogram("upstream_duration_seconds", "Time that an upstream took to answer.", "upstream")
	open := func(label string) *upstreamSeries {
		of := func(result string) prometheus.Counter { return attempts.WithLabelValues(label, result) }
		return &upstreamSeries{of(resultOK), of(resultBadRCode), of(resultTimeout), of(resultError), of(resultUnknown), durations.WithLabelValues(label)}
	}
	drop := func(k upstreamKey) {
		attempts.DeletePartialMatch(prometheus.Labels{"upstream": k.label()})
		durations.DeleteLabelValues(k.label())
	}
	return newBounded(maxUpstreams, func(k upstreamKey) *upstreamSeries { return open(k.label()) }, drop, open(otherLabel))
}

// upstream counts an attempt, and those of a chain behind it.
func (l *Lookups) upstream(t *trace.Trace, u *trace.Upstream) {
	for _, ex := range u.Earlier {
		l.drop(t, ex, true)
	}
	l.drop(t, u.Exchange, true)
	if k, ok := keyOf(u); ok {
		l.upstreams.get(k, t.Time).observe(u)
	}
	for i := range u.Upstreams {
		l.upstream(t, &u.Upstreams[i])
	}
}

// keyOf returns the key of an upstream; not ok where it is unknown.
func keyOf(u *trace.Upstream) (upstreamKey, bool) {
	switch {
	case u.Attempt != nil && u.Attempt.Address != "":
		// An error of the parser would cost memory for every lookup.
		if !strings.Contains(u.Attempt.Address, "://") {
			if addr, err := netip.ParseAddrPort(u.Attempt.Address); err == nil {
				return upstreamKey{addr: addr}, true
			}
		}
		return upstreamKey{text: label(u.Attempt.Address)}, true
	case u.Exchange != nil && u.Exchange.ServerIP.IsValid():
		return upstreamKey{addr: netip.AddrPortFrom(u.Exchange.ServerIP, u.Exchange.ServerPort)}, true
	}
	return upstreamKey{}, false
}

// observe counts what CoreDNS says of the attempt, else what its packets show.
func (s *upstreamSeries) observe(u *trace.Upstream) {
	rcode := ""
	var duration *trace.Seconds
	if ex := u.Exchange; ex != nil {
		rcode, duration = ex.RCode, ex.Duration
	}
	if a := u.Attempt; a != nil && duration == nil {
		duration = a.Duration
	}
	if u.Rejected() {
		s.err.Inc()
		return
	}
	switch u.Outcome() {
	case trace.OutcomeOK, trace.OutcomeAnswered:
		if rcode != "" && rcode != "NOERROR" && rcode != "NXDOMAIN" {
			s.badRCode.Inc()
		} else {
			s.ok.Inc()
		}
		if duration != nil {
			s.duration.Observe(duration.Duration().Seconds())
		}
	case trace.OutcomeTimeout, trace.OutcomeUnanswered, trace.OutcomeDropped:
		s.timeout.Inc()
	case "":
		s.unknown.Inc()
	default:
		s.err.Inc()
	}
}

// Describe implements prometheus.Collector.
func (l *Lookups) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range l.vectors {
		v.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (l *Lookups) Collect(ch chan<- prometheus.Metric) {
	for _, v := range l.vectors {
		v.Collect(ch)
	}
}
