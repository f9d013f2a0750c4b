package integration

import (
	"context"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// An upstream that fails or refuses is not one that says that a name does not
// exist.
func TestDiagnoseUpstreamError(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for zone, rcode := range map[string]int{
		"servfail.test.": dns.RcodeServerFailure, "refused.test.": dns.RcodeRefused, "nxdomain.test.": dns.RcodeNameError,
	} {
		r.Upstream(0).Set(zone, lab.Behaviour{Rcode: rcode})
		r.answered(lab.Query{Name: zone})
	}
	r.finds("servfail.test.", "upstream-error", r.Upstream(0).V4().String(), "SERVFAIL")
	r.finds("refused.test.", "upstream-error", r.Upstream(0).V4().String(), "REFUSED")
	r.spares("refused-by-server", "refused.test.", 1)
	r.spares("upstream-error", "nxdomain.test.", 1)
	r.keep("upstream-error", "servfail.test", "refused.test")
	r.keep("upstream-error-not", "nxdomain.test")
}

// An upstream answers what was not asked, and what is no whole message: CoreDNS makes a
// FORMERR of the one and a truncated answer of the other. A client gets such
// an answer itself.
func TestDiagnoseResponseRejected(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	upstream := r.Upstream(0)
	upstream.Set("otherquestion.test.", lab.Behaviour{Mangle: lab.OtherQuestion})
	upstream.Set("cut.test.", lab.Behaviour{Mangle: lab.Cut})
	upstream.Set("otherid.test.", lab.Behaviour{Mangle: lab.OtherID})
	r.answered(lab.Query{Name: "otherquestion.test."})
	r.answered(lab.Query{Name: "cut.test."})
	if _, err := r.Client("client-a").Exchange(context.Background(), lab.Query{Name: "otherid.test.", Server: upstream.V4(), Timeout: time.Second}); err == nil {
		t.Error("the client took an answer with another ID")
	}
	r.finds("otherquestion.test.", "response-rejected", "attempt 1", upstream.V4().String(), "wrong question")
	r.finds("cut.test.", "response-rejected", "attempt 1", upstream.V4().String(), "incomplete")
	r.finds("otherid.test.", "response-rejected", upstream.V4().String(), "wrong DNS ID")
	for _, code := range []string{"no-response-seen", "upstream-error", "upstream-timeout"} {
		r.spares(code, "otherquestion.test.", 1)
	}
	r.keep("response-rejected", "otherquestion.test", "cut.test", "otherid.test")
}

// Nothing listens at the first upstream: the kernel there says so.
func TestDiagnoseUpstreamClosed(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	undo, err := r.NoListener(r.Upstream(0))
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	r.answered(lab.Query{Name: "closed.test."})
	r.finds("closed.test.", "dropped-no-socket", "attempt 1", r.Host(lab.Upstream).Netns)
	r.keep("upstream-closed", "closed.test")
}

// An upstream that does not answer most of its queries is unhealthy; one that is
// silent about one name is not.
func TestDiagnoseUpstreamUnhealthy(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	// The healthy one first: what is remembered of it must not hide the fault.
	r.SilentUpstream(0, "once.test.")
	r.together(append(numbered(8, "fine.test."), "once.test."), lab.Query{})
	r.spares("upstream-unhealthy", "once.test.", 1)

	r.SilentUpstream(0, "down.test.")
	names := numbered(24, "down.test.")
	r.together(names, lab.Query{})
	fired := 0
	for _, name := range names {
		for _, code := range findings(r.trace(name)) {
			if code == "upstream-unhealthy" {
				fired++
			}
		}
	}
	if fired < 12 {
		t.Errorf("fired with %d of %d lookups", fired, len(names))
	}
	r.keep("upstream-unhealthy", "down.test")
	r.keep("upstream-unhealthy-not", "once.test", "fine.test")
}

// Seven tenths of a second is slow, two tenths is a recursion.
func TestDiagnoseSlowUpstream(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.Upstream(0).Set("slow.test.", lab.Behaviour{Delay: 700 * time.Millisecond})
	r.Upstream(0).Set("brisk.test.", lab.Behaviour{Delay: 200 * time.Millisecond})
	r.answered(lab.Query{Name: "slow.test."})
	r.answered(lab.Query{Name: "brisk.test."})
	r.finds("slow.test.", "slow-upstream", r.Upstream(0).V4().String()+" itself took", "the way there and back took")
	r.spares("slow-upstream", "brisk.test.", 1)
	r.keep("slow-upstream", "slow.test")
	r.keep("slow-upstream-not", "brisk.test")
}
