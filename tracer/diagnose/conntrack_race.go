package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// raceWindow is how close two queries from one socket are for the kernel to work
// on both before either is confirmed.
const raceWindow = 5 * time.Millisecond

// conntrackRace finds one of two queries that left one socket together and that
// raced for one entry of connection tracking. Proof: the kernel dropped it on the
// node, after it left its pod, by a hook and not by a rule of nftables
// (nf_hook_slow), at the hook where its new entry would have been confirmed; and
// its twin from the same port, within milliseconds, got through.
func conntrackRace(m *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	ex := s.exchange
	if s.upstream || ex.Protocol != "udp" || d.Message != trace.MessageQuery || !atConfirm(d) {
		return trace.Finding{}, false
	}
	if client, known := ex.ClientPlace(); !known || client == d.Place() {
		return trace.Finding{}, false // the pod's own firewall
	}
	for _, other := range m.of(lookupKey{clientOf(ex), ex.QName}) {
		apart := ex.Time.Sub(other.start)
		if other.port != ex.ClientPort || other.protocol != ex.Protocol || other.dnsID == ex.ID || other.queryDrop || !other.answered || apart.Abs() > raceWindow {
			continue
		}
		return trace.Finding{
			Code:    ConntrackRace,
			Summary: fmt.Sprintf("Two queries left one socket %s apart; connection tracking dropped %s in %s.", took(apart.Abs()), s.name(), droppedIn(t, d)),
			Evidence: []string{
				fmt.Sprintf("the %s query for the same name, DNS ID %#04x, left port %d %s apart and was answered (trace %s)",
					other.qtype, other.dnsID, other.port, took(apart.Abs()), other.id),
				"a rule that drops just one of the two at that hook looks the same, if it is one of iptables-legacy or the kernel is before Linux 6.12",
			},
			Advice: "Run a node-local DNS cache, or set `options single-request-reopen` in the client's resolv.conf (glibc); newer kernels lose fewer.",
		}, true
	}
	return trace.Finding{}, false
}

// atConfirm tells whether a packet died where connection tracking confirms new
// entries. Where the kernel does not tell the hook, or whether there was a new
// entry, the drop has no words for it.
func atConfirm(d *trace.Drop) bool {
	return d.Where == "nf_hook_slow" && byNetfilter(d) && strings.Contains(d.Description, "conntrack insert clash")
}
