package dnstrace

import (
	"runtime"
	"strings"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// Nothing in CoreDNS says whether the cache had the answer. It shows in what
// the cache did: an answer from a plugin after it goes out while that plugin's
// span is open; an answer of its own goes out when it asked nobody (a hit, or
// stale data), or after it asked in vain (stale data). Stale data has a TTL of
// zero, the TTL that serve_stale names, or with keepttl the one that it came with; data
// that is not stale has at least one second.

// answeredCache says what the cache did for the answer that is about to be
// written. It is called with the lock.
func (rec *recording) answeredCache(m *dns.Msg) string {
	c := rec.cacheSpan()
	if c == nil {
		return trace.CacheNone
	}
	asked, asking := rec.children(c)
	switch {
	case asking, asked && c.end != open:
		return rec.missOrNone()
	case asked:
		return trace.CacheStale
	}
	ttl, known := minTTL(m)
	chain := &rec.plugin.chain
	switch {
	case known && ttl == 0:
		return trace.CacheStale
	case len(rec.background) > 0 && answeredByVerify():
		return trace.CacheMiss
	case chain.stale && !chain.tellsStale(ttl, known):
		return ""
	}
	return trace.CacheHit
}

// tellsStale reports whether an answer of the cache whose least TTL is ttl, and not 0,
// would have another one if it were stale.
func (c *chain) tellsStale(ttl uint32, known bool) bool {
	if c.staleTTL > 0 {
		return known && ttl != c.staleTTL
	}
	return known && !c.keepTTL
}

// unansweredCache is answeredCache where no answer was written.
func (rec *recording) unansweredCache() string {
	c := rec.cacheSpan()
	if c == nil {
		return trace.CacheNone
	}
	if asked, asking := rec.children(c); asked || asking {
		return rec.missOrNone()
	}
	return ""
}

// missOrNone tells a cache that had no answer from one that was not looked in:
// a cache passes on names that are not in its zones, and all but queries.
func (rec *recording) missOrNone() string {
	c, name := &rec.plugin.chain, rec.ident.q.Name
	switch {
	case int(rec.opcode) != dns.OpcodeQuery,
		len(c.cacheZones) > 0 && zones(c.cacheZones).match(name) == "",
		zones(c.cacheBypass).match(name) != "":
		return trace.CacheNone
	}
	return trace.CacheMiss
}

// cacheSpan returns the last cache on the way of the query itself, not of a
// nested lookup.
func (rec *recording) cacheSpan() *span {
	for i := len(rec.spans) - 1; i >= 0; i-- {
		if s := rec.spans[i]; s.name == cachePlugin && !inNested(s) {
			return s
		}
	}
	return nil
}

// inNested reports whether s is part of a nested lookup: those pass this plugin
// again.
func inNested(s *span) bool {
	for p := s.parent; p != nil; p = p.parent {
		if p.name == pluginName {
			return true
		}
	}
	return false
}

// children reports whether a plugin after the cache c was asked, and whether
// one is being asked now.
func (rec *recording) children(c *span) (asked, asking bool) {
	for _, s := range rec.spans {
		if s.parent == c {
			asked = true
			asking = asking || s.end == open
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

// answeredByVerify reports whether the cache is writing an answer that it has
// just had verified (serve_stale with a verify timeout): that answer is fresh,
// although the cache writes it itself. Its caller is the only difference from
// an answer whose prefetch is already done, and only asked in that rare case.
func answeredByVerify() bool {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "(*Cache).verifyWithTimeout") {
			return true
		}
		if !more {
			return false
		}
	}
}
