package integration

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A Service's answer comes from the pod's own address, as nothing translates it back: its
// client waits for it, and takes none. That is so whichever way the translation got lost.
func TestDiagnoseUnexpectedSource(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "3s")
	for zone, lose := range map[string]func() (undo func(), err error){
		"bridged.test.": r.UntranslatedReplies,
		"untracked.test.": func() (func(), error) {
			return r.RuleAt(lab.NodeRawPrerouting, lab.Match{Messages: lab.Responses, Network: "udp", Leg: lab.ClientLeg}, "-j", "CT", "--notrack")
		},
		"expired.test.": func() (func(), error) {
			undo := r.Upstream(0).Set("expired.test.", lab.Behaviour{Delay: 400 * time.Millisecond})
			time.AfterFunc(200*time.Millisecond, func() {
				if err := r.ForgetConnections(); err != nil {
					t.Error(err)
				}
			})
			return undo, nil
		},
	} {
		undo, err := lose()
		if err != nil {
			t.Fatal(err)
		}
		if res := r.ask(lab.Query{Name: zone, Timeout: time.Second}); res.Err == nil {
			t.Errorf("%s: answered", zone)
		}
		undo()
		tr := r.finds(zone, "unexpected-source", "The translation of", "was not undone", r.Host(lab.CoreDNS).V4.String()+":53", "wrong source address")
		if len(tr.Diagnosis) != 1 || tr.Outcome != trace.OutcomeUnanswered {
			t.Errorf("%s: %s, findings %v", zone, tr.Outcome, findings(tr))
		}
	}
	r.answered(lab.Query{Name: "translated.test."})
	r.spares("unexpected-source", "translated.test.", 1)
	r.keep("unexpected-source", "bridged.test", "untracked.test", "expired.test")
}

// A server with several addresses answers from another one, or from another port: neither
// a client nor CoreDNS takes it. The other port is one that is observed: packets of others
// are not seen.
func TestDiagnoseAnswerFromElsewhere(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "3s", "--port", "53", "--port", "5353")
	upstream := r.Upstream(0)
	other := netip.AddrPortFrom(r.Upstream(1).V4().Addr(), 5353)
	upstream.Set("address.test.", lab.Behaviour{From: other})
	upstream.Set("port.test.", lab.Behaviour{From: netip.AddrPortFrom(upstream.V4().Addr(), 5353)})
	for name, from := range map[string]string{"a.address.test.": other.String(), "a.port.test.": "from port 5353"} {
		if res := r.ask(lab.Query{Name: name, Server: upstream.V4(), Timeout: time.Second}); res.Err == nil {
			t.Errorf("%s: answered", name)
		}
		r.finds(name, "unexpected-source", from, "does not take it")
	}
	r.ask(lab.Query{Name: "b.address.test.", Timeout: 7 * time.Second})
	tr := r.finds("b.address.test.", "unexpected-source", other.String(), "attempt 1")
	for _, code := range findings(tr) {
		if code == "upstream-timeout" || code == "client-gave-up" || code == "response-rejected" {
			t.Errorf("%s beside it", code)
		}
	}
	r.keep("unexpected-source-upstream", "address.test", "port.test")
}
