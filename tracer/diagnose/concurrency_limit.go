package diagnose

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// maxConcurrentError is how forward says that it treats no more queries at once
// (plugin/forward, ErrLimitExceeded).
const maxConcurrentError = "concurrent queries exceeded maximum"

// manyOutstanding is how many queries have to wait for a server that refuses one more: of
// fewer, nothing is known.
const manyOutstanding = 2

// concurrencyLimit finds a query that was refused because a server treats no more at
// once. Proof: CoreDNS's own error; or an upstream's REFUSED while others that were sent
// before still waited, where within a minute none was refused with fewer before it and
// none was answered with more. If no other response of that upstream is known, it is
// in doubt.
func concurrencyLimit(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	eachQuery(t, func(q *trace.Query, _ *trace.Exchange) {
		if !strings.Contains(q.Error, maxConcurrentError) {
			return
		}
		findings = append(findings, trace.Finding{
			Code:    ConcurrencyLimit,
			Summary: fmt.Sprintf("CoreDNS refused the query, because too many wait for its upstreams: %s.", q.Error),
			Evidence: []string{
				fmt.Sprintf("CoreDNS recorded the query: outcome %s, %s, error %q, %s", q.Outcome, codeOf(q), q.Error, english.Plural(len(q.Upstreams), "upstream attempt", "")),
			},
			Advice: "Find why its upstreams are slow: queries wait for them. Or raise `max_concurrent` in `forward`; each that waits takes some 2 kB.",
		})
	})
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		if limit, sure := limited(m, t, u); limit > 0 {
			findings = append(findings, limitFinding(u, limit, sure))
		}
	})
	return findings
}

func limitFinding(u *trace.Upstream, limit int, sure bool) trace.Finding {
	ex := u.Exchange
	f := trace.Finding{
		Code:    ConcurrencyLimit,
		InDoubt: !sure,
		Summary: fmt.Sprintf("The upstream %s refused the query while it had %s to answer: a limit of queries at once.", address(u), english.Plural(ex.Outstanding, "other", "")),
		Evidence: []string{
			fmt.Sprintf("its query with ID %#04x left from %s port %d when %s waited, and the response had the code REFUSED", ex.ID, ex.ClientIP, ex.ClientPort, english.Plural(ex.Outstanding, "other", "")),
			fmt.Sprintf("within a minute, what it refused had at least %d before it, and what it answered had no more", limit),
		},
		Advice: "Raise its limit (`dns-forward-max` of dnsmasq, `recursive-clients` of BIND), or find what makes it slow.",
	}
	if !sure {
		f.Evidence[1] = "those were not refused; nothing else that it answered within a minute is known"
	}
	return f
}

// limited returns how many queries an upstream treats at once, at most, if it refused one
// for that; 0 if not. sure tells that it answered others within a minute.
func limited(m *memory, t *trace.Trace, u *trace.Upstream) (limit int, sure bool) {
	ex := u.Exchange
	seen := m.upstreams[address(u)]
	if ex == nil || ex.RCode != "REFUSED" || ex.Outstanding < manyOutstanding || seen == nil {
		return 0, false
	}
	limit = ex.Outstanding
	most := -1
	for i := range seen.load {
		switch l := &seen.load[i]; {
		case !within(l.at, ex.Time):
		case l.refused:
			limit = min(limit, l.outstanding)
		default:
			most = max(most, l.outstanding)
		}
	}
	// Queries sent together may reach the server in another order.
	if limit < manyOutstanding || most > limit {
		return 0, false
	}
	return limit, most >= 0
}
