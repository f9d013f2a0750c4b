package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// forwarders are the plugins whose time is their upstreams'.
var forwarders = []string{"forward", "grpc"}

// serverSlow finds a plugin that took its time. Proof: CoreDNS's record of the
// query: most of a slow query went by in that plugin itself, not in those after
// it and not while an upstream was asked.
func serverSlow(_ *memory, t *trace.Trace) []trace.Finding {
	q := t.Query
	if q == nil || q.DNS.Duration == nil || q.DNS.Duration.Duration() < slow {
		return nil
	}
	total := q.DNS.Duration.Duration()
	worst, own := -1, time.Duration(0)
	for i := range q.Hops {
		// A cache that answers with what is stale may have waited for its upstream first.
		stale := q.Cache == trace.CacheStale && q.Hops[i].Plugin == "cache"
		if d := ownTime(q, i); d > own && !stale && !slices.Contains(forwarders, q.Hops[i].Plugin) {
			worst, own = i, d
		}
	}
	if worst < 0 || own < slow || own < total/2 {
		return nil
	}
	h := &q.Hops[worst]
	summary := fmt.Sprintf("CoreDNS's plugin %s took %s of the %s that the server needed", h.Plugin, took(own), took(total))
	evidence := []string{
		fmt.Sprintf("plugin %s started %s after the query was read; %s of its time passed in it, not in plugins after it or upstream", h.Plugin, since(h.Start), took(own)),
		recordedHow(q),
	}
	if errorCode(q.RCode) && q.AnsweredBy == h.Plugin {
		summary += ", and answered " + q.RCode
		if q.Error != "" {
			summary += ": " + q.Error
			evidence = append(evidence, "CoreDNS's own words: "+q.Error)
		}
	}
	return []trace.Finding{{
		Code:     ServerSlow,
		Summary:  summary + ".",
		Evidence: evidence,
		Advice:   fmt.Sprintf("Look at what `%s` waits for: its configuration in the Corefile, its backend (API server, etcd, files), CoreDNS's CPU limit.", h.Plugin),
	}}
}

// ownTime is the time that a query spent in a plugin and neither in those after
// it nor waiting for its upstreams.
func ownTime(q *trace.Query, hop int) time.Duration {
	start := q.Hops[hop].Start.Duration()
	over := hopEnd(q, hop)
	own := over - start
	for i := range q.Hops {
		if p := q.Hops[i].Parent; p != nil && *p == hop {
			own -= hopEnd(q, i) - q.Hops[i].Start.Duration()
		}
	}
	for i := range q.Upstreams {
		if at := &q.Upstreams[i]; at.Plugin == q.Hops[hop].Plugin && at.Duration != nil && at.Start.Duration() >= start && at.Start.Duration() <= over {
			own -= at.Duration.Duration()
		}
	}
	return own
}

// hopEnd is when a plugin was done, at the latest with the query.
func hopEnd(q *trace.Query, hop int) time.Duration {
	h := &q.Hops[hop]
	if h.Duration == nil {
		return max(q.DNS.Duration.Duration(), h.Start.Duration())
	}
	return h.Start.Duration() + h.Duration.Duration()
}

// recordedHow quotes what CoreDNS's record says of how an answer came about, as far as it
// does.
func recordedHow(q *trace.Query) string {
	var parts []string
	switch q.Cache {
	case "":
	case trace.CacheNone:
		parts = append(parts, "no cache on its way")
	default:
		parts = append(parts, "cache "+q.Cache)
	}
	if q.AnsweredBy != "" {
		parts = append(parts, "answered by "+q.AnsweredBy)
	}
	if len(parts) == 0 {
		return "CoreDNS recorded the query, and not which plugin answered it"
	}
	return "CoreDNS recorded the query: " + strings.Join(parts, ", ")
}
