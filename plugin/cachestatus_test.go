package dnstrace

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// A cache that passed a query on had no answer, or was not looked in.
func TestMissOrNone(t *testing.T) {
	for _, tc := range []struct {
		name   string
		opcode int
		known  settings
		want   string
		asked  string // of the cache, if a plugin before it rewrote the name
	}{
		{"example.org.", dns.OpcodeQuery, settings{}, trace.CacheMiss, ""},
		{"example.org.", dns.OpcodeNotify, settings{}, trace.CacheNone, ""},
		{"example.org.", dns.OpcodeQuery, settings{zones: []string{"net.", "org."}}, trace.CacheMiss, ""},
		{"example.org.", dns.OpcodeQuery, settings{zones: []string{"net."}}, trace.CacheNone, ""},
		{"example.org.", dns.OpcodeQuery, settings{bypass: []string{"net."}}, trace.CacheMiss, ""},
		{"example.org.", dns.OpcodeQuery, settings{bypass: []string{"org."}}, trace.CacheNone, ""},
		{"example.net.", dns.OpcodeQuery, settings{zones: []string{"net."}}, trace.CacheNone, "example.org."},
		{"example.org.", dns.OpcodeQuery, settings{zones: []string{"net."}}, trace.CacheMiss, "example.net."},
	} {
		q := &query{opcode: tc.opcode}
		cache := &span{calledBy: &hop{known: func() *settings { return &tc.known }}, asks: dns.Question{Name: tc.asked}}
		q.ident = &q.own
		q.own.q = dns.Question{Name: tc.name}
		if got := q.missOrNone(cache); got != tc.want {
			t.Errorf("%s opcode %d, %+v: %s, want %s", tc.name, tc.opcode, tc.known, got, tc.want)
		}
	}
}

// An answer of the cache is stale or not where its TTL tells; it never is where the
// cache has no stale data.
func TestTellsStale(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cache settings
		ttl   uint32
		known bool
		want  bool
	}{
		{"no record", settings{}, 0, false, false},
		{"a TTL that stale data has not", settings{}, 5, true, true},
		{"the TTL that stale data has", settings{staleTTL: 5}, 5, true, false},
		{"another one", settings{staleTTL: 5}, 6, true, true},
		{"any TTL is the upstream's", settings{keepTTL: true}, 5, true, false},
		{"that of stale data goes before", settings{keepTTL: true, staleTTL: 5}, 6, true, true},
	} {
		if got := tc.cache.tellsStale(tc.ttl, tc.known); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}
