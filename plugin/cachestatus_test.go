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
		opcode uint8
		chain  chain
		want   string
	}{
		{"example.org.", dns.OpcodeQuery, chain{}, trace.CacheMiss},
		{"example.org.", dns.OpcodeNotify, chain{}, trace.CacheNone},
		{"example.org.", dns.OpcodeQuery, chain{cacheZones: []string{"net.", "org."}}, trace.CacheMiss},
		{"example.org.", dns.OpcodeQuery, chain{cacheZones: []string{"net."}}, trace.CacheNone},
		{"example.org.", dns.OpcodeQuery, chain{cacheBypass: []string{"net."}}, trace.CacheMiss},
		{"example.org.", dns.OpcodeQuery, chain{cacheBypass: []string{"org."}}, trace.CacheNone},
	} {
		rec := new(recording)
		rec.plugin, rec.opcode = &Dnstrace{chain: tc.chain}, tc.opcode
		rec.ident = &rec.own
		rec.own.q = dns.Question{Name: tc.name}
		if got := rec.missOrNone(); got != tc.want {
			t.Errorf("%s opcode %d, %+v: %s, want %s", tc.name, tc.opcode, tc.chain, got, tc.want)
		}
	}
}

// An answer of the cache is stale or not where its TTL tells; it never is where the
// cache has no stale data.
func TestTellsStale(t *testing.T) {
	for _, tc := range []struct {
		name  string
		chain chain
		ttl   uint32
		known bool
		want  bool
	}{
		{"no record", chain{}, 0, false, false},
		{"a TTL that stale data has not", chain{}, 5, true, true},
		{"the TTL that stale data has", chain{staleTTL: 5}, 5, true, false},
		{"another one", chain{staleTTL: 5}, 6, true, true},
		{"any TTL is the upstream's", chain{keepTTL: true}, 5, true, false},
		{"that of stale data goes before", chain{keepTTL: true, staleTTL: 5}, 6, true, true},
	} {
		if got := tc.chain.tellsStale(tc.ttl, tc.known); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}
