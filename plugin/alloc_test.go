//go:build !race

package dnstrace

import (
	"context"
	"testing"

	"github.com/miekg/dns"
)

// The plugin allocates at most twice for a query, recorded or not. What
// plugin.NextOrFailure allocates for the span of a further hop comes on top.
// (The race detector makes sync.Pool forget on purpose.)
func TestAllocations(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	next := answering{new(dns.Msg).SetReply(r)}
	for _, sampled := range []bool{false, true} {
		d := traced(t, next, sampled)
		ctx, w := context.Background(), discarding{}
		allocs := testing.AllocsPerRun(1000, func() {
			r.Id++
			if _, err := d.ServeDNS(ctx, w, r); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 2 {
			t.Errorf("sampled %v: %v allocations a query, want at most 2", sampled, allocs)
		}
	}
}
