package dnstrace

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// A cache says what it did if it has docs/coredns/0003. Else it shows in what it did: an answer from a
// plugin after it goes out while that plugin's hop is open; an answer of its own goes out when it asked nobody
// (a hit, or stale data), or after it asked in vain (stale data). Stale data has a TTL of zero, the TTL that
// serve_stale names, or with keepttl the one that it came with; data that is not stale has at least one second.

// answeredCache says what the cache did for the answer that is about to be written.
func (q *query) answeredCache(m *dns.Msg) string {
	c := q.cacheHop()
	if c == nil {
		return trace.CacheNone
	}
	passed, waits := q.passedOn(c)
	switch {
	case c.says != "":
		return c.says
	case waits, passed && c.took != open:
		return q.missOrNone(c)
	case passed:
		return trace.CacheStale
	}
	s := c.settings()
	ttl, known := minTTL(m)
	switch {
	case known && ttl == 0:
		return trace.CacheStale
	case s.mayBeStale && !s.tellsStale(ttl, known):
		return ""
	case slices.ContainsFunc(q.refreshes, (*record).hasVerified):
		return trace.CacheMiss // it answers with what came when it had stale data verified
	}
	return trace.CacheHit
}

// hasVerified reports whether a refresh for which a cache waits is done.
func (rec *record) hasVerified() bool { return rec.verifies && rec.took != open }

// unansweredCache is answeredCache where no answer was written.
func (q *query) unansweredCache() string {
	c := q.cacheHop()
	if c == nil {
		return trace.CacheNone
	}
	if c.says != "" {
		return c.says
	}
	if passed, _ := q.passedOn(c); passed {
		return q.missOrNone(c)
	}
	return ""
}

// cacheStatusTag is the tag on its span by which a cache says what it did, with the values of a record.
const cacheStatusTag = "cache.status"

// saysNothing reports whether a cache that has returned looked for the answer and did not say what it did.
func (q *query) saysNothing(cache *span) bool {
	return cache.says == "" && q.missOrNone(cache) == trace.CacheMiss
}

// missOrNone tells a cache that had no answer from one that was not looked in: a cache passes on names that are
// not in its zones, and all but queries.
func (q *query) missOrNone(cache *span) string {
	s, name := cache.settings(), q.ident.q.Name
	if asked := cache.asks.Name; asked != "" { // rewrite comes before it
		name = asked
	}
	switch {
	case q.opcode != dns.OpcodeQuery, len(s.zones) > 0 && s.zones.match(name) == "", s.bypass.match(name) != "":
		return trace.CacheNone
	}
	return trace.CacheMiss
}

// cacheHop returns the last cache on the way of the query itself, not of a nested lookup: those pass this
// plugin again.
func (q *query) cacheHop() *span {
	for _, h := range slices.Backward(q.hops) {
		if h.name == cachePlugin && !h.nested {
			return h
		}
	}
	return nil
}

// minTTL returns the smallest TTL in m, and whether there is one.
func minTTL(m *dns.Msg) (ttl uint32, known bool) {
	if m == nil {
		return 0, false
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			// The TTL field of OPT is something else (RFC 6891, section 6.1.3).
			if h.Rrtype != dns.TypeOPT && (!known || h.Ttl < ttl) {
				ttl, known = h.Ttl, true
			}
		}
	}
	return ttl, known
}

// refreshCause says why the cache refreshed what it answered with.
func refreshCause(cache string) string {
	switch cache {
	case trace.CacheStale:
		return "stale"
	case trace.CacheHit:
		return "prefetch"
	}
	return ""
}
