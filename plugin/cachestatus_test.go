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
