package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/plural"
)

// An upstream is unhealthy if at least so many of its queries within the window
// failed, and at least half of all.
const (
	healthWindow = time.Minute
	fewFailures  = 4
)

// upstreamUnhealthy finds an upstream that keeps failing, with each lookup that
// suffers from it. Proof: of the queries to it within a minute, at least four and
// at least half got no response, or an error.
func upstreamUnhealthy(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	told := map[string]bool{}
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		at, failed, known := askedAt(t, u)
		if !known {
			return
		}
		addr := address(u)
		w := m.upstream(addr)
		if !t.Replaces { // what it replaces was counted
			w.add(at, failed)
		}
		all, bad := w.sum(at)
		if !failed || bad < fewFailures || 2*bad < all || told[addr] {
			return
		}
		told[addr] = true
		findings = append(findings, trace.Finding{
			Code:    UpstreamUnhealthy,
			Summary: fmt.Sprintf("The upstream %s keeps failing: %d of %d queries within a minute.", addr, bad, all),
			Evidence: []string{
				fmt.Sprintf("of the last %s to it until %s UTC, %d got no response or an error, %d were answered", plural.Of(all, "query"), at.UTC().Format("15:04:05"), bad, all-bad),
			},
			Advice: "Take it out of the server's upstreams (`forward`) until it is well, or let CoreDNS do so: `max_fails`, `health_check`.",
		})
	})
	return findings
}

// eachUpstream visits a tree.
func eachUpstream(upstreams []trace.Upstream, visit func(*trace.Upstream)) {
	for i := range upstreams {
		visit(&upstreams[i])
		eachUpstream(upstreams[i].Upstreams, visit)
	}
}

// askedAt says when an upstream was asked, and whether it failed; not known
// where it cannot be told: packets may be missing, or the address is unknown.
func askedAt(t *trace.Trace, u *trace.Upstream) (at time.Time, failed, known bool) {
	switch ex := u.Exchange; {
	case ex != nil && (ex.Outcome != trace.OutcomeUnanswered || !incomplete(ex)):
		return ex.Time, ex.Outcome != trace.OutcomeAnswered || errorCode(ex.RCode), true
	case u.Attempt != nil && u.Attempt.Address != "" && u.Attempt.Outcome != "":
		start := t.Time
		if t.Query != nil {
			start = t.Query.Time
		}
		return start.Add(u.Attempt.Start.Duration()), u.Attempt.Outcome != trace.OutcomeOK, true
	}
	return at, false, false
}

// upstream returns the window of an upstream.
func (m *memory) upstream(addr string) *window {
	w := m.upstreams[addr]
	if w == nil {
		if len(m.upstreams) >= maxUpstreams {
			forgetStalest(m.upstreams, func(w *window) int64 { return w.latest() })
		}
		w = newWindow(healthWindow)
		m.upstreams[addr] = w
	}
	return w
}
