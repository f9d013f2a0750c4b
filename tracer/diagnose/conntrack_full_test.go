package diagnose

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// Of a packet without an entry in a full table, the place and the hook tell whether
// a rule dropped it. Where they cannot, the finding says what else it may be.
func TestConntrackFullOrARule(t *testing.T) {
	for _, tc := range []struct {
		name   string
		where  string
		words  string
		count  uint32
		max    uint32
		want   string
		reason string
	}{
		{"turned away on the way in", "nf_hook_slow", "netfilter hook PREROUTING", 1000, 1000, ConntrackFull, "NETFILTER_DROP"},
		{"turned away on the way out of its own namespace", "nf_hook_slow", "netfilter hook OUTPUT", 1000, 1000, ConntrackFull, "NETFILTER_DROP"},
		{"a few ended meanwhile", "nf_hook_slow", "netfilter hook PREROUTING", 990, 1000, ConntrackFull, "NETFILTER_DROP"},
		{"the kernel does not tell the hook", "nf_hook_slow", "netfilter", 1000, 1000, ConntrackFull, "NETFILTER_DROP"},
		{"the kernel gives no reason", "nf_hook_slow", "", 1000, 1000, ConntrackFull, ""},
		{"a rule of nftables", "nft_do_chain", "netfilter hook PREROUTING", 1000, 1000, DroppedByNetfilter, "NETFILTER_DROP"},
		{"a rule behind connection tracking, of what it leaves alone", "nf_hook_slow", "netfilter hook FORWARD", 1000, 1000, DroppedByNetfilter, "NETFILTER_DROP"},
		{"a rule of the device", "nf_hook_slow", "netfilter hook INGRESS", 1000, 1000, DroppedByNetfilter, "NETFILTER_DROP"},
		{"there was room", "nf_hook_slow", "netfilter hook PREROUTING", 900, 1000, DroppedByNetfilter, "NETFILTER_DROP"},
		{"it had an entry", "nf_hook_slow", "netfilter hook PREROUTING", 0, 0, DroppedByNetfilter, "NETFILTER_DROP"},
		{"no place", "", "netfilter", 1000, 1000, DroppedByNetfilter, "NETFILTER_DROP"},
	} {
		tr := &trace.Trace{Exchange: &trace.Exchange{Outcome: trace.OutcomeDropped, Drops: []trace.Drop{{
			Message: trace.MessageQuery, Where: tc.where, Reason: tc.reason, Description: tc.words, ConntrackCount: tc.count, ConntrackMax: tc.max,
		}}}}
		found := New().Trace(tr)
		if len(found) != 1 || found[0].Code != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, found, tc.want)
			continue
		}
		evidence := strings.Join(found[0].Evidence, "\n")
		if tc.want == ConntrackFull && (!strings.Contains(evidence, "looks the same") || !strings.Contains(found[0].Advice, "To be sure")) {
			t.Errorf("%s: what else it may be is not said: %+v", tc.name, found[0])
		}
	}
}
