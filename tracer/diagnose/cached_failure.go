package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// cacheLongest is for how long CoreDNS's cache keeps a failure at most (plugin/cache,
// `servfail`; RFC 2308, section 7).
const cacheLongest = 5 * time.Minute

// failureKey is one entry of the cache of one server.
type failureKey struct {
	server      trace.Place
	name, qtype string
}

// failure is how a lookup failed whose response a server may have cached.
type failure struct {
	at    time.Time
	trace trace.TraceID
	rcode string
	why   string
}

// cachedFailure finds a failure that a server had cached. Proof: its record says that the
// response is from its cache. What put it there is quoted if it was seen: the same
// question, at the same server, within the five minutes that a failure is cached. A server
// that is asked again and again for one lookup has one finding.
func cachedFailure(m *memory, t *trace.Trace) []trace.Finding {
	var found grouped[failureKey]
	eachQuery(t, func(q *trace.Query, ex *trace.Exchange) {
		if !failedFromCache(q) {
			return
		}
		k := keyOf(q, ex)
		if cause := m.causeOf(q, k); cause != nil && cause.trace == t.TraceID {
			return // it has a finding of its own
		}
		found.add(k, m.fromCache(q, k))
	})
	return found.reported("; asked %d times for this lookup")
}

// fromCache says of a response that a failure was cached, and by what.
func (m *memory) fromCache(q *trace.Query, k failureKey) trace.Finding {
	cause := m.causeOf(q, k)
	if cause == nil {
		return trace.Finding{
			Code:     CachedFailure,
			Summary:  fmt.Sprintf("%s came out of CoreDNS's cache; what put it there was not seen.", q.RCode),
			Evidence: []string{recordedHow(q) + ", " + codeOf(q)},
			Advice:   "Ask again when it has expired: 5 s after the failure, or what `servfail` in `cache` says. Then the lookup shows its cause.",
		}
	}
	return trace.Finding{
		Code:    CachedFailure,
		Summary: fmt.Sprintf("%s came out of CoreDNS's cache: %s before, %s.", q.RCode, took(q.Time.Sub(cause.at)), cause.why),
		Evidence: []string{
			recordedHow(q) + ", " + codeOf(q),
			fmt.Sprintf("the lookup of %s %s at %s UTC failed (trace %s): %s", q.QName, q.QType, cause.at.UTC().Format("15:04:05.000"), cause.trace, cause.why),
		},
		Advice: "See why: `dnstrace explain " + cause.trace.String() + "`. A failure is cached for 5 s (`servfail` in `cache`).",
	}
}

// causeOf returns the failure that put a response into a server's cache; nil if it was not
// seen.
func (m *memory) causeOf(q *trace.Query, k failureKey) *failure {
	cause := m.failures[k]
	if cause == nil || q.Time.Sub(cause.at) < 0 || q.Time.Sub(cause.at) > cacheLongest || cause.rcode != q.RCode {
		return nil
	}
	return cause
}

// failedFromCache tells whether a server answered with a failure that it had cached.
func failedFromCache(q *trace.Query) bool {
	return q != nil && q.Cache == trace.CacheHit && errorCode(q.RCode)
}

// eachQuery visits the records of a trace, each with the exchange of its query, if that
// was seen.
func eachQuery(t *trace.Trace, visit func(*trace.Query, *trace.Exchange)) {
	if t.Query != nil {
		visit(t.Query, t.Exchange)
	}
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		if u.Query != nil {
			visit(u.Query, u.Exchange)
		}
	})
}

func keyOf(q *trace.Query, ex *trace.Exchange) failureKey {
	k := failureKey{name: q.QName, qtype: q.QType}
	if ex != nil {
		k.server, _ = ex.ServerPlace()
	}
	return k
}

// learnFailures notes the failures of a trace that servers may have cached.
func (m *memory) learnFailures(t *trace.Trace) {
	note := func(q *trace.Query, ex *trace.Exchange, upstreams []trace.Upstream) {
		if q == nil || !errorCode(q.RCode) || failedFromCache(q) {
			return
		}
		if len(m.failures) >= maxFailures {
			forgetStalest(m.failures, func(f *failure) int64 { return f.at.UnixNano() })
		}
		m.failures[keyOf(q, ex)] = &failure{q.Time, t.TraceID, q.RCode, whyFailed(q, upstreams)}
	}
	note(t.Query, t.Exchange, t.Upstreams)
	eachUpstream(t.Upstreams, func(u *trace.Upstream) { note(u.Query, u.Exchange, u.Upstreams) })
}

// whyFailed says in a few words how a query failed.
func whyFailed(q *trace.Query, upstreams []trace.Upstream) string {
	if len(upstreams) == 0 {
		if q.Error != "" {
			return "CoreDNS failed: " + q.Error
		}
		return fmt.Sprintf("%s answered %s", pluginOf(q), q.RCode)
	}
	u := &upstreams[len(upstreams)-1]
	switch ex := u.Exchange; {
	case ex != nil && errorCode(ex.RCode):
		return fmt.Sprintf("the upstream %s answered %s%s", address(u), ex.RCode, inWords(ex))
	case silent(u):
		return fmt.Sprintf("the upstream %s did not answer", address(u))
	case u.Attempt != nil && u.Attempt.Error != "":
		return fmt.Sprintf("the upstream %s failed: %s", address(u), u.Attempt.Error)
	case u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeOK:
		return fmt.Sprintf("the upstream %s answered %s", address(u), q.RCode)
	}
	return fmt.Sprintf("the upstream %s gave no answer that CoreDNS could use", address(u))
}

// pluginOf names the plugin that answered a query.
func pluginOf(q *trace.Query) string {
	if q.AnsweredBy == "" {
		return "CoreDNS itself"
	}
	return "CoreDNS's plugin " + q.AnsweredBy
}
