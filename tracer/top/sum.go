package top

import (
	"math"
	"net/netip"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// accuracy is how far a percentile may be from the exact one, relative to it.
const accuracy = 0.01

// sum is what one client's lookups, or the attempts at one upstream, add up to.
type sum struct {
	counts
	latency latency
	peak    peak
	names   names // of an upstream
}

// counts are of lookups or of attempts.
type counts struct{ count, timeouts, failed, negative, resent, findings uint64 }

func (c *counts) add(o *counts) {
	c.count += o.count
	c.timeouts += o.timeouts
	c.failed += o.failed
	c.negative += o.negative
	c.resent += o.resent
	c.findings += o.findings
}

func (c *counts) sub(o *counts) {
	c.count -= o.count
	c.timeouts -= o.timeouts
	c.failed -= o.failed
	c.negative -= o.negative
	c.resent -= o.resent
	c.findings -= o.findings
}

// latency sums durations up: exact but for the percentiles.
type latency struct {
	count    uint64
	min, max time.Duration
	total    float64 // seconds
	sketch   *ddsketch.DDSketch
}

func (l *latency) add(d time.Duration) {
	d = max(d, 0)
	if l.sketch == nil {
		l.sketch = newSketch()
		l.min = d
	}
	l.count++
	l.min, l.max = min(l.min, d), max(l.max, d)
	l.total += d.Seconds()
	// It refuses only what is no number, or negative.
	_ = l.sketch.Add(d.Seconds())
}

func newSketch() *ddsketch.DDSketch {
	s, err := ddsketch.NewDefaultDDSketch(accuracy)
	if err != nil {
		// Only of an accuracy outside of 0 to 1.
		panic(err)
	}
	return s
}

func (l *latency) merge(o *latency) {
	if o.sketch == nil {
		return
	}
	if l.sketch == nil {
		l.sketch = newSketch()
		l.min = o.min
	}
	l.count += o.count
	l.min, l.max = min(l.min, o.min), max(l.max, o.max)
	l.total += o.total
	// Sketches of one accuracy fit each other.
	_ = l.sketch.MergeWith(o.sketch)
}

// summary returns nil if nothing was answered.
func (l *latency) summary() *Latency {
	if l.sketch == nil {
		return nil
	}
	at := func(q float64) trace.Seconds {
		// The nearest rank: unlike the sketch's own, it does not hide one outlier
		// among few. The half keeps clear of rounding.
		rank := math.Ceil(q * float64(l.count))
		if rank >= float64(l.count) {
			return trace.Seconds(l.max)
		}
		v, err := l.sketch.GetValueAtQuantile((rank - 0.5) / float64(l.count-1))
		if err != nil {
			return 0
		}
		d := time.Duration(math.Round(v * float64(time.Second)))
		return trace.Seconds(min(max(d, l.min), l.max))
	}
	return &Latency{
		Min: trace.Seconds(l.min), Avg: trace.Seconds(l.total / float64(l.count) * float64(time.Second)),
		P50: at(0.5), P99: at(0.99), Max: trace.Seconds(l.max),
	}
}

// lookup is what of a trace is summed up.
type lookup struct {
	timeout, failed, negative, sampled, finding bool
	resent                                      uint64
	duration                                    *trace.Seconds
	at                                          time.Time
}

func newLookup(t *trace.Trace) lookup {
	l := lookup{at: t.Time, duration: t.Duration, finding: len(t.Diagnosis) > 0}
	switch {
	case diagnose.WentOn(t):
		l.duration = nil // its client has another answer
	case t.Outcome == trace.OutcomeUnanswered, t.Outcome == trace.OutcomeDropped, t.Outcome == trace.OutcomeNoResponse:
		l.timeout, l.duration = true, nil
	default:
		l.negative = t.RCode == "NXDOMAIN"
		l.failed = !l.negative && t.RCode != "NOERROR" && (t.RCode != "" || t.Outcome != trace.OutcomeAnswered)
	}
	if e := t.Exchange; e != nil && e.Transmissions > 1 {
		l.resent = uint64(e.Transmissions - 1)
	}
	l.sampled = t.Sample != nil && *t.Sample < 1 || t.Exchange == nil && t.Query != nil && t.Query.Sample != nil && *t.Query.Sample < 1
	return l
}

func (l *lookup) counts() counts {
	return counts{
		count: 1, timeouts: one(l.timeout), failed: one(l.failed), negative: one(l.negative), findings: one(l.finding), resent: l.resent,
	}
}

// attemptCounts are of one try at an upstream: what CoreDNS says of it, else what its
// packets show. The duration is nil where there was no answer.
func attemptCounts(u *trace.Upstream) (c counts, duration *trace.Seconds) {
	c.count = 1
	if e := u.Exchange; e != nil {
		duration = e.Duration
		c.negative = one(e.RCode == "NXDOMAIN")
	}
	for _, e := range u.Exchanges() {
		c.resent += uint64(max(e.Transmissions-1, 0))
	}
	if a := u.Attempt; a != nil {
		duration = a.Duration
	}
	if u.Rejected() {
		c.failed = 1
		return c, nil
	}
	switch u.Outcome() {
	case trace.OutcomeOK, trace.OutcomeAnswered:
		c.failed = one(u.Exchange != nil && badAnswer(u.Exchange.RCode))
		return c, duration
	case trace.OutcomeTimeout, trace.OutcomeUnanswered, trace.OutcomeDropped:
		c.timeouts = 1
	case "":
	default:
		c.failed = 1
	}
	return c, nil
}

// badAnswer tells whether a response says that the upstream could not serve.
func badAnswer(rcode string) bool {
	return rcode != "" && rcode != "NOERROR" && rcode != "NXDOMAIN"
}

func (s *sum) merge(o *sum) {
	s.counts.add(&o.counts)
	s.latency.merge(&o.latency)
	s.peak.merge(&o.peak)
	s.names.merge(o.names)
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func addressOf(e *trace.Exchange) string {
	return netip.AddrPortFrom(e.ServerIP, e.ServerPort).String()
}
