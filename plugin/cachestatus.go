package dnstrace

import (
	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// A cache says what it did if it has docs/coredns/0003. Else it shows in what
// it did: an answer from a plugin after it goes out while that plugin's
// hop is open; an answer of its own goes out when it asked nobody (a hit, or
// stale data), or after it asked in vain (stale data). Stale data has a TTL of
// zero, the TTL that serve_stale names, or with keepttl the one that it came with; data
// that is not stale has at least one second.

// answeredCache says what the cache did for the answer that is about to be
// written. verified tells that it has done work in the background for it.
func (rec *record) answeredCache(m *dns.Msg, verified bool) string {
	c := rec.cacheHop()
	if c == none {
		return trace.CacheNone
	}
	asked, asking := rec.askedBy(c)
	switch {
	case rec.hops[c].told != "":
		return rec.hops[c].told
	case asking, asked && rec.hops[c].end != open:
		return rec.missOrNone(c)
	case asked:
		return trace.CacheStale
	}
	s := rec.settings(c)
	ttl, known := minTTL(m)
	switch {
	case known && ttl == 0:
		return trace.CacheStale
	case verified && s.verifies && !s.prefetches:
		// It had stale data verified, and answers with what came.
		return trace.CacheMiss
	case verified && s.verifies, s.mayBeStale && !s.tellsStale(ttl, known):
		return ""
	}
	return trace.CacheHit
}

// unansweredCache is answeredCache where no answer was written.
func (rec *record) unansweredCache() string {
	c := rec.cacheHop()
	if c == none {
		return trace.CacheNone
	}
	if told := rec.hops[c].told; told != "" {
		return told
	}
	if asked, _ := rec.askedBy(c); asked {
		return rec.missOrNone(c)
	}
	return ""
}

// cacheStatusTag is the tag on its span by which a cache says what it did, with the values of a record.
const cacheStatusTag = "cache.status"

// saysNothing reports whether a cache that has returned looked for the answer and did not say what it did.
func (rec *record) saysNothing(cache int) bool {
	return rec.hops[cache].told == "" && rec.missOrNone(cache) == trace.CacheMiss
}

// missOrNone tells a cache that had no answer from one that was not looked in:
// a cache passes on names that are not in its zones, and all but queries.
func (rec *record) missOrNone(cache int) string {
	s, name := rec.settings(cache), rec.ident.q.Name
	if asked := rec.hops[cache].asks.Name; asked != "" { // rewrite comes before it
		name = asked
	}
	switch {
	case rec.opcode != dns.OpcodeQuery,
		len(s.zones) > 0 && zones(s.zones).match(name) == "",
		zones(s.bypass).match(name) != "":
		return trace.CacheNone
	}
	return trace.CacheMiss
}

// cacheHop returns the last cache on the way of the query itself, not of a
// nested lookup: those pass this plugin again.
func (rec *record) cacheHop() int {
	for i := len(rec.hops) - 1; i >= 0; i-- {
		if rec.hops[i].name == cachePlugin && !rec.isNested(i) {
			return i
		}
	}
	return none
}

func (rec *record) isNested(hop int) bool {
	for ; hop != none; hop = rec.hops[hop].parent {
		if rec.hops[hop].name == pluginName {
			return true
		}
	}
	return false
}

// askedBy reports whether a plugin after a cache was asked, and whether
// one is being asked now.
func (rec *record) askedBy(cache int) (asked, asking bool) {
	for i := range rec.hops {
		if rec.hops[i].parent == cache {
			asked = true
			asking = asking || rec.hops[i].end == open
		}
	}
	return asked, asking
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
