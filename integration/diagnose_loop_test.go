package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// asking is a Corefile that forwards everything to an address, so many queries at once.
func asking(l *lab.Lab, upstream string) string {
	return fmt.Sprintf(". {\n errors\n %s\n forward . %s {\n max_concurrent 20\n max_fails 0\n }\n}\n", recording(l), upstream)
}

// loops makes a lookup that fails, and wants one trace of it with that finding and no other.
func (r *faultRig) loops(name string, parts ...string) *trace.Trace {
	r.t.Helper()
	r.ask(lab.Query{Name: name, Timeout: 8 * time.Second})
	tr := r.finds(name, "forwarding-loop", parts...)
	if got := findings(tr); len(got) != 1 || tr.Exchange.ClientIP != r.Host("client-a").V4 {
		r.t.Errorf("%s: findings %v of %s", name, got, tr.Exchange.ClientIP)
	}
	time.Sleep(3 * time.Second)
	told := 0
	for _, tr := range r.traces(name, 1) {
		if tr.Exchange != nil && tr.Exchange.ClientIP == r.Host("client-a").V4 {
			told++
		}
		if got := findings(tr); !slices.Equal(got, []string{"forwarding-loop"}) && tr.Role == "" {
			r.t.Errorf("%s: findings %v", name, got)
		}
	}
	if told > 3 {
		r.t.Errorf("%s: told %d times", name, told)
	}
	return tr
}

// A server forwards to its own address.
func TestDiagnoseForwardingLoop(t *testing.T) {
	r := newFaultRigInLab(t, func(l *lab.Lab) string { return asking(l, l.Host(lab.CoreDNS).V4.String()) }, "--timeout", "3s")
	r.loops("self.loop.test.", "is the server itself", r.Host(lab.CoreDNS).V4.String(), "the question came back at least 8 times", r.Host(lab.CoreDNS).Netns)
	r.keep("forwarding-loop", "loop.test")
}

// It forwards to the Service that it is behind.
func TestDiagnoseForwardingLoopThroughAService(t *testing.T) {
	r := newFaultRigInLab(t, func(l *lab.Lab) string { return asking(l, lab.ServiceV4.Addr().String()) }, "--timeout", "3s")
	r.loops("service.loop.test.", lab.ServiceV4.Addr().String()+" port 53 leads to the server itself", "dropped on the way back there")
	r.keep("forwarding-loop-service", "loop.test")
}

// Two servers forward to each other.
func TestDiagnoseForwardingLoopOfTwo(t *testing.T) {
	r := newFaultRigInLab(t, func(l *lab.Lab) string { return asking(l, l.Host("client-b").V4.String()) }, "--timeout", "3s")
	if _, err := r.StartCoreDNSOn("client-b", asking(r.Lab, r.Host(lab.CoreDNS).V4.String())); err != nil {
		t.Fatal(err)
	}
	other := netip.AddrPortFrom(r.Host("client-b").V4, 53)
	r.loops("two.loop.test.", fmt.Sprintf("The server %s asks %s, which asks it again", r.Host(lab.CoreDNS).V4, other))
	r.keep("forwarding-loop-two", "loop.test")
}

// A server that asks itself at another port, where it has another upstream, which fails: the
// question does not come back.
func TestDiagnoseNoForwardingLoop(t *testing.T) {
	r := newFaultRigInLab(t, func(l *lab.Lab) string {
		at := l.Host(lab.CoreDNS).V4.String() + ":5353"
		behind := fmt.Sprintf(".:5353 {\n errors\n %s\n forward . %s {\n max_fails 0\n }\n}\n", recording(l), l.Upstream(0).V4())
		return asking(l, at) + behind
	}, "--timeout", "3s", "--port", "53", "--port", "5353")
	defer r.SilentUpstream(0, "silent.chain.test.")()
	r.answered(lab.Query{Name: "good.chain.test."})
	r.ask(lab.Query{Name: "silent.chain.test.", Timeout: 8 * time.Second})
	r.spares("forwarding-loop", "good.chain.test.", 1)
	tr := r.spares("forwarding-loop", "silent.chain.test.", 1)[0]
	if !slices.Contains(findings(tr), "upstream-timeout") {
		t.Errorf("findings %v", findings(tr))
	}
	r.keep("forwarding-loop-not", "chain.test")
}
