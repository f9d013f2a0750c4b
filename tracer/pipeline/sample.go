package pipeline

import (
	"encoding/binary"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// slow is the duration from which a lookup is recorded whatever the rate: the default of
// the plugin's option of that name.
const slow = trace.Seconds(500 * time.Millisecond)

// sampler chooses the records that are passed on: those of a share of the ordinary
// lookups, by [trace.Sampled], as the plugin does, and all others.
type sampler struct {
	rate     *float64 // nil: all of them
	inKernel bool     // which has chosen already, whatever becomes of them
}

// mark says in an exchange that the kernel chose it.
func (s sampler) mark(ex *trace.Exchange) {
	if s.inKernel {
		ex.Sample, ex.SampledInKernel = s.rate, true
	}
}

// exchange tells whether an exchange is recorded, and says in it if the rate is why.
// What its trace shows is not known yet: one that looks ordinary and turns out to be
// part of a failure has its trace recorded.
func (s sampler) exchange(ex *trace.Exchange) bool {
	return s.keeps(ordinary(ex) && !ex.SampledInKernel, ex.SamplingHash(), &ex.Sample)
}

// trace does so for a trace, which has its diagnosis.
func (s sampler) trace(t *trace.Trace) bool {
	if t.Exchange != nil && t.Exchange.SampledInKernel {
		t.Sample = s.rate
		return true
	}
	return s.keeps(Ordinary(t), hashOf(t), &t.Sample)
}

// Ordinary tells whether nothing is the matter with a lookup: it did not fail, was not
// slow, nothing of it was lost on its way, and it has no finding.
func Ordinary(t *trace.Trace) bool {
	return len(t.Diagnosis) == 0 && well(t.Outcome, t.RCode, t.Duration) &&
		(t.Exchange == nil || ordinary(t.Exchange)) && (t.Recorded() == nil || served(t.Query)) && called(t.Upstreams)
}

// hashOf returns the sampling hash of a lookup: by what CoreDNS got, which decides by it
// too, where that is known. A refresh has no query of its own: its trace id serves as a
// random number.
func hashOf(t *trace.Trace) uint32 {
	switch {
	case t.Exchange == nil && t.Query != nil, t.Recorded() != nil:
		return t.Query.SamplingHash()
	case t.Exchange != nil:
		return t.Exchange.SamplingHash()
	}
	return binary.BigEndian.Uint32(t.TraceID[12:])
}

func (s sampler) keeps(ordinary bool, hash uint32, rate **float64) bool {
	if s.rate == nil || !ordinary {
		return true
	}
	*rate = s.rate
	return trace.Sampled(hash, *s.rate)
}

// well tells whether a lookup was answered in time and without an error.
func well(outcome, rcode string, took *trace.Seconds) bool {
	return outcome == trace.OutcomeAnswered && rcode != "SERVFAIL" && rcode != "REFUSED" && (took == nil || *took < slow)
}

// ordinary tells whether nothing is the matter with an exchange.
func ordinary(ex *trace.Exchange) bool {
	return well(ex.Outcome, ex.RCode, ex.Duration) && untroubled(ex) && ex.ICMP == nil
}

// untroubled tells whether nothing of an exchange was lost or refused on its way.
func untroubled(ex *trace.Exchange) bool {
	return len(ex.Drops) == 0 && len(ex.Rejected) == 0 && ex.Reset == nil
}

// served tells whether the server says that nothing was the matter.
func served(q *trace.Query) bool {
	for i := range q.Upstreams {
		if q.Upstreams[i].MayHaveFailed() {
			return false
		}
	}
	return well(q.Outcome, q.RCode, q.Duration) && q.Error == ""
}

// called tells whether the upstreams answered, and those that they asked.
func called(upstreams []trace.Upstream) bool {
	for i := range upstreams {
		u := &upstreams[i]
		if u.Exchange != nil && (u.Exchange.Outcome != trace.OutcomeAnswered || !untroubled(u.Exchange)) || !called(u.Upstreams) {
			return false
		}
	}
	return true
}
