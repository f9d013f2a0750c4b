package dnstrace

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// A cache with the patch docs/coredns/0003 tags its span with its status. Without, the status follows from what
// happened: the answer of a plugin after the cache is written while that plugin's hop is open; an answer of the cache
// is written when it called no plugin (a hit, or stale data), or after that failed (stale data). Stale data has a TTL
// of zero, the TTL of serve_stale, or with keepttl its original one; fresh data has a TTL of at least one second.

// cacheStatus returns what the cache did for the answer that is about to be written, or for a query to which none
// was. m is nil for an answer in wire format.
func (q *query) cacheStatus(answered bool, m *dns.Msg) string {
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
	case !answered:
		return ""
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
		return trace.CacheMiss // it answers with what the verification got
	}
	return trace.CacheHit
}

// hasVerified reports whether a refresh for which a cache waits is done.
func (rec *record) hasVerified() bool { return rec.verifies && rec.took != open }

// cacheStatusTag is the tag with which a cache tells its status, one of cacheStatuses.
const cacheStatusTag = "cache.status"

var cacheStatuses = []string{trace.CacheHit, trace.CacheMiss, trace.CacheStale}

// saysNothing reports whether a cache that has returned looked up the answer and did not tag its span.
func (q *query) saysNothing(cache *span) bool {
	return cache.says == "" && q.missOrNone(cache) == trace.CacheMiss
}

// missOrNone tells a cache miss from a query that bypassed the cache: a name outside its zones, or another opcode.
func (q *query) missOrNone(cache *span) string {
	s, name := cache.settings(), q.ident.q.Name
	if asked := cache.asks.Name; asked != "" { // rewrite may come before it
		name = asked
	}
	switch {
	case q.opcode != dns.OpcodeQuery, len(s.zones) > 0 && s.zones.match(name) == "", s.bypass.match(name) != "":
		return trace.CacheNone
	}
	return trace.CacheMiss
}

// cacheHop returns the last cache that the query itself passed, not a nested lookup.
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

// refreshCause returns why a cache refreshed what it answered with.
func refreshCause(cache string) string {
	switch cache {
	case trace.CacheStale:
		return "stale"
	case trace.CacheHit:
		return "prefetch"
	}
	return ""
}
