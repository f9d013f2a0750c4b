package integration

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A pod behind the Service goes away, and connection tracking still leads to it:
// a client that uses its port again gets no answer, another port does.
func TestDiagnoseStaleEndpoint(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "4s")
	old, err := r.AddPod("dns-old")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Serve("dns-old", netip.AddrPortFrom(old.V4, 53)); err != nil {
		t.Fatal(err)
	}
	pod := r.Host(lab.CoreDNS)
	if err := r.SetEndpoints(netip.AddrPortFrom(old.V4, 53), netip.AddrPortFrom(pod.V6, 53)); err != nil {
		t.Fatal(err)
	}
	const port = 40953
	r.answered(lab.Query{Name: "before.test.", LocalPort: port})
	// What the Service's controller does when the pod goes; the tracked connection
	// stays, and the neighbour is forgotten.
	if err := r.SetEndpoints(netip.AddrPortFrom(pod.V4, 53), netip.AddrPortFrom(pod.V6, 53)); err != nil {
		t.Fatal(err)
	}
	if err := r.RemovePod("dns-old"); err != nil {
		t.Fatal(err)
	}
	if err := r.ForgetNeighbour(old.V4); err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "stale.test.", LocalPort: port, Timeout: 4 * time.Second})
	r.answered(lab.Query{Name: "fresh.test."})
	r.finds("stale.test.", "stale-endpoint", old.V4.String(), "did not answer ARP or ND", "NEIGH_FAILED")
	wantWords(t, r.trace("stale.test."), "neighbour unresolved")
	r.spares("stale-endpoint", "fresh.test.", 1)
	r.keep("stale-endpoint", "stale.test")
	r.keep("stale-endpoint-not", "fresh.test")
}

// A and AAAA from one socket, of which the node drops one at the end of connection
// tracking, as it does when both race for one entry. Today's kernels settle the
// race without loss, so the lab's own hook at that place drops it: the same
// evidence by a rule. It is the first, because the second would find its entry
// confirmed.
func TestDiagnoseConntrackRace(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "3s")
	undo, err := r.RaceLostBy("raced.test.", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	r.Client("client-a").ExchangeTogether(t.Context(),
		lab.Query{Name: "raced.test.", Timeout: time.Second}, lab.Query{Name: "raced.test.", Type: dns.TypeAAAA})
	undo()
	traces := r.traces("raced.test.", 2)
	lost := traces[slices.IndexFunc(traces, func(tr *trace.Trace) bool { return tr.QType == "A" })]
	wantAll(t, evidence(t, lost, "conntrack-race"), "Two queries left one socket", "the AAAA query for the same name", "nf_hook_slow")
	wantWords(t, lost, "netfilter hook POSTROUTING, by a rule or a conntrack insert clash")
	resolutions := map[string]string{} // by type; what is told again counts
	for _, tr := range r.settledAll("raced.test.", 2) {
		resolutions[tr.QType] = tr.Resolution
	}
	if resolutions["A"] == "" || resolutions["A"] != resolutions["AAAA"] {
		t.Errorf("one call is several resolutions: %v", resolutions)
	}
	r.keep("conntrack-race", "raced.test")

	// A firewall that drops all AAAA is no race, though the twin got through.
	if undo, err = r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg, Extra: []string{"-m", "string", "--algo", "bm", "--hex-string", "|00001c0001|"}}); err != nil {
		t.Fatal(err)
	}
	defer undo()
	r.Client("client-a").ExchangeTogether(t.Context(),
		lab.Query{Name: "walled.test.", Timeout: time.Second}, lab.Query{Name: "walled.test.", Type: dns.TypeAAAA})
	for _, tr := range r.spares("conntrack-race", "walled.test.", 2) {
		if tr.QType == "AAAA" && !slices.Contains(findings(tr), "dropped-by-netfilter") {
			t.Errorf("findings %v", findings(tr))
		}
	}
	r.keep("conntrack-race-not", "walled.test")
}

// An upstream address that nobody has, and that no Service stands for: the same
// drop by the kernel, but no stale endpoint.
func TestDiagnoseNoSuchHost(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "4s")
	r.ask(lab.Query{Name: "nohost.test.", Server: netip.MustParseAddrPort("192.168.49.99:53"), Timeout: 4 * time.Second})
	r.finds("nohost.test.", "dropped-other", "NEIGH_FAILED", "192.168.49.99, or the gateway to it, did not answer ARP or ND")
	wantWords(t, r.trace("nohost.test."), "neighbour unresolved")
	r.spares("stale-endpoint", "nohost.test.", 1)
	r.keep("dropped-other", "nohost.test")
}

// A nameserver that nobody is, on the client's own network: the query waits in the client's
// namespace, and is of the time when it was sent, not of that when the kernel gave it up.
func TestDiagnoseNoSuchNeighbour(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "4s")
	nobody := lab.PodNetV4.Addr().As4()
	nobody[3] = 99
	addr := netip.AddrPortFrom(netip.AddrFrom4(nobody), 53)
	r.ask(lab.Query{Name: "nobody.test.", Server: addr, Timeout: 4 * time.Second})
	tr := r.finds("nobody.test.", "dropped-other", "NEIGH_FAILED", addr.Addr().String()+", or the gateway to it, did not answer")
	if ex := tr.Exchange; ex.Path.Len() != 0 || ex.LastDrop().Offset == 0 || ex.Client == nil || ex.Client.PID == 0 {
		t.Errorf("%d sightings, drop %s after it was sent, by %+v", ex.Path.Len(), ex.LastDrop().Offset.Duration(), ex.Client)
	}
}

// wantWords wants a drop told in words that users know.
func wantWords(t *testing.T, tr *trace.Trace, words string) {
	t.Helper()
	if d := tr.Exchange.LastDrop(); d == nil || d.Description != words {
		t.Errorf("%s: drop %+v, expected %q", tr.QName, d, words)
	}
}
