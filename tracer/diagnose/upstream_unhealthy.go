package diagnose

import (
	"fmt"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// An upstream is unhealthy if at least so many of its queries, for at least so many
// names, failed within the window.
const (
	fewFailures = 4
	fewBadNames = 2
)

// upstreamUnhealthy finds an upstream that keeps failing, with each lookup that
// suffers from it. Proof: within a minute, at least four of the queries to it and at least
// half of all got no response, or an error; and so did at least half of the names, of
// which at least two. A name of which any type is answered, be it out of the cache, is not
// one that the upstream fails.
func upstreamUnhealthy(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	reported := map[string]bool{}
	eachUpstream(t.Upstreams, func(up *trace.Upstream) {
		o, known := outcomeOf(t, up)
		addr := address(up)
		if !known || !o.failed || reported[addr] {
			return
		}
		if limit, _ := limited(m, t, up); limit > 0 {
			return // it has enough to do
		}
		u := m.upstream(addr)
		all, bad := u.queries.sum(o.at)
		names, badNames := m.count(u, o.at)
		if bad < fewFailures || 2*bad < all || badNames < fewBadNames || badNames < names {
			return
		}
		reported[addr] = true
		findings = append(findings, trace.Finding{
			Code:    UpstreamUnhealthy,
			Summary: fmt.Sprintf("The upstream %s keeps failing: %d of %d queries within a minute.", addr, bad, all),
			Evidence: []string{
				fmt.Sprintf("of the last %s to it until %s UTC, %d got no response or an error, %d were answered", english.Plural(all, "query", ""), o.at.UTC().Format("15:04:05"), bad, all-bad),
				fmt.Sprintf("%d of the latest %s that it was asked for had no answer for any type", badNames, english.Plural(names+badNames, "name", "")),
			},
			Advice: "Take it out of the server's upstreams (`forward`) until it is well, or let CoreDNS do so: `max_fails`, `health_check`.",
		})
	})
	return findings
}
