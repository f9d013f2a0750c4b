package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// A failure out of the cache names the one that put it there; that a name does not exist
// is an answer.
func TestDiagnoseCachedFailure(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	upstream := r.Upstream(0)
	upstream.Set("servfail.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure})
	upstream.Set("nxdomain.test.", lab.Behaviour{Rcode: dns.RcodeNameError})
	for range 2 {
		r.answered(lab.Query{Name: "cached.servfail.test."})
		r.answered(lab.Query{Name: "cached.nxdomain.test."})
	}
	traces := r.traces("cached.servfail.test.", 2)
	wantAll(t, evidence(t, traces[0], "upstream-error"), upstream.V4().String(), "SERVFAIL")
	wantAll(t, evidence(t, traces[1], "cached-failure"), "the upstream "+upstream.V4().String()+" answered SERVFAIL", traces[0].TraceID.String())
	r.spares("cached-failure", "cached.nxdomain.test.", 2)
	r.keep("cached-failure", "cached.servfail.test")
	r.keep("cached-failure-not", "cached.nxdomain.test")
}

// An upstream refuses what is more than it treats at once, and so does CoreDNS; one that
// refuses a name does so whatever else it treats.
func TestDiagnoseConcurrencyLimit(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	upstream := r.Upstream(0)
	upstream.Set("limit.test.", lab.Behaviour{Limit: 2, Delay: 400 * time.Millisecond})
	upstream.Set("refused.test.", lab.Behaviour{Rcode: dns.RcodeRefused})
	// Those that it treats are there before the others are sent: the order is the test's.
	names := numbered(6, "limit.test.")
	treated := make(chan struct{})
	go func() { defer close(treated); r.together(names[:2], lab.Query{}) }()
	time.Sleep(100 * time.Millisecond)
	r.together(names[2:], lab.Query{})
	<-treated
	refused := 0
	for _, name := range names {
		if tr := r.trace(name); tr.RCode == "REFUSED" {
			refused++
			wantAll(t, evidence(t, tr, "concurrency-limit"), upstream.V4().String(), "REFUSED", "waited")
		}
	}
	if refused == 0 {
		t.Error("the upstream refused none of six queries at once")
	}
	r.answered(lab.Query{Name: "a.refused.test."})
	r.spares("concurrency-limit", "a.refused.test.", 1)
	r.keep("concurrency-limit", "limit.test")
	r.keep("concurrency-limit-not", "refused.test")
}

// CoreDNS itself refuses what is more than `max_concurrent`.
func TestDiagnoseMaxConcurrent(t *testing.T) {
	r := newFaultRig(t, func(l *lab.Lab) string {
		return ".:53 {\n" + recording(l) + "\nforward . " + l.Upstream(0).V4().String() + " {\nmax_concurrent 1\n}\n}\n"
	})
	r.Upstream(0).Set("busy.test.", lab.Behaviour{Delay: 400 * time.Millisecond})
	names := numbered(4, "busy.test.")
	r.together(names, lab.Query{})
	refused := 0
	for _, name := range names {
		if tr := r.trace(name); tr.RCode == "REFUSED" {
			refused++
			wantAll(t, evidence(t, tr, "concurrency-limit"), "concurrent queries exceeded maximum 1")
			r.spares("refused-by-server", name, 1)
		}
	}
	if refused == 0 {
		t.Error("CoreDNS refused none of four queries at once")
	}
	r.keep("concurrency-limit-here", "busy.test")
}

// An upstream that answers one type of a name and ignores another is not silent.
func TestDiagnoseTypeIgnored(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for i := range 2 {
		r.Upstream(i).Set("ignored.test.", lab.Behaviour{Type: dns.TypeAAAA, Silent: true})
		r.Upstream(i).Set("silent.test.", lab.Behaviour{Silent: true})
	}
	r.answered(lab.Query{Name: "a.ignored.test."})
	r.answered(lab.Query{Name: "a.ignored.test.", Type: dns.TypeAAAA, Timeout: 9 * time.Second})
	r.answered(lab.Query{Name: "a.silent.test.", Timeout: 9 * time.Second})
	traces := r.traces("a.ignored.test.", 2)
	wantAll(t, evidence(t, traces[1], "type-ignored"), r.Upstream(0).V4().String(), "answers A of a.ignored.test. and ignores AAAA")
	r.spares("type-ignored", "a.silent.test.", 1)
	r.keep("type-ignored", "ignored.test")
	r.keep("type-ignored-not", "silent.test")
}

// CoreDNS takes a query and means not to answer it: acl drops.
func TestDiagnoseQueryDroppedByServer(t *testing.T) {
	r := newFaultRig(t, func(l *lab.Lab) string { return forwarding(l, "acl dropped.test {\ndrop\n}") }, "--timeout", "2s")
	r.ask(lab.Query{Name: "a.dropped.test.", Timeout: time.Second})
	r.finds("a.dropped.test.", "no-response-seen", "its plugin acl", "outcome no_response")
	r.keep("dropped-by-server", "dropped.test")
}

// One call asks for A and AAAA of one name, and what it gets contradicts itself: NXDOMAIN
// beside an answer. A name that only has no IPv6 address does not; an error is a finding of the
// lookup that got it.
func TestDiagnoseInconsistentAnswers(t *testing.T) {
	with := buildResolver(t, "musl")
	r := newFaultRig(t, plainForwarding)
	for i := range 2 {
		r.Upstream(i).Set("nx.test.", lab.Behaviour{Type: dns.TypeAAAA, Rcode: dns.RcodeNameError})
		r.Upstream(i).Set("sf.test.", lab.Behaviour{Type: dns.TypeAAAA, Rcode: dns.RcodeServerFailure})
		r.Upstream(i).Set("four.test.", lab.Behaviour{Type: dns.TypeAAAA, Empty: true})
	}
	conf := "nameserver " + lab.ServiceV4.Addr().String() + "\noptions timeout:1 attempts:1\n"
	r.resolveBefore("client-a", with)
	for _, name := range []string{"a.nx.test.", "a.sf.test.", "a.four.test."} {
		r.resolve("client-a", with, name, conf)
	}
	told := 0
	for _, tr := range r.settled("a.nx.test", 2) {
		if slices.Contains(findings(tr), "inconsistent-answers") {
			told++
			wantAll(t, evidence(t, tr, "inconsistent-answers"), "answered NXDOMAIN for AAAA, and for A with 1 record", "musl finds no such name, glibc and Go take the address",
				"a.nx.test. A was answered NOERROR", "a.nx.test. AAAA was answered")
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	for _, tr := range r.settled("a.sf.test", 2) {
		if tr.QType == "AAAA" {
			wantAll(t, evidence(t, tr, "upstream-error"), r.Upstream(0).V4().String(), "SERVFAIL") // for AAAA alone, if A was told before
		}
	}
	r.spares("inconsistent-answers", "a.sf.test.", 2)
	r.spares("inconsistent-answers", "a.four.test.", 2)
	r.keep("inconsistent-answers", "nx.test", "sf.test")
	r.keep("inconsistent-answers-not", "four.test")
}
