package render

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// Under the title stands why: the cause by its name, before anything else.
func TestTheCauseStandsOnTop(t *testing.T) {
	d := diagnose.New()
	wrong := 0
	for _, tr := range recordedTraces(t) {
		tr.Diagnosis = d.Trace(tr)
		lines := strings.SplitN(draw(t, tr, Options{}), "\n", 4)
		want := " DIAGNOSIS: nothing wrong was found"
		if len(tr.Diagnosis) > 0 {
			want = " DIAGNOSIS: " + findingName(&tr.Diagnosis[0]) + " · "
			wrong++
		}
		if !strings.HasPrefix(lines[1], want) {
			t.Errorf("want %q beneath the title:\n%s", want, strings.Join(lines[:3], "\n"))
		}
	}
	if wrong < 50 {
		t.Errorf("only %d had a finding", wrong)
	}
}

// Who was reported at once that a query is not taken does not wait for a response: it was rejected.
func TestRejectedIsNotDropped(t *testing.T) {
	tr := droppedTrace()
	for want, icmp := range map[string]*trace.ICMP{
		"NO RESPONSE: DROPPED on the way there": nil, "NO RESPONSE: REJECTED on the way there": {Type: 3, Code: 3, Message: trace.MessageQuery},
	} {
		if tr.Exchange.ICMP = icmp; !strings.Contains(strings.SplitN(draw(t, tr, Options{}), "\n", 2)[0], want) {
			t.Errorf("want %q:\n%s", want, draw(t, tr, Options{}))
		}
	}
}

// A lookup that failed and has no finding is not left without a word: it says who ended it.
func TestAFailureWithoutAFindingSaysWhoEndedIt(t *testing.T) {
	record := &trace.Query{Outcome: trace.OutcomeError, AnsweredBy: "forward", Error: "no healthy proxies"}
	lost := clientExchange("", 0, there(0))
	lost.Outcome = trace.OutcomeUnanswered
	dropped := droppedTrace()
	dropped.Diagnosis = nil
	silent := &trace.Query{Outcome: trace.OutcomeNoResponse, Hops: []trace.Hop{{Plugin: "errors"}, {Plugin: "acl"}}}
	unverified := &trace.Query{Outcome: trace.OutcomeError, Unverified: true}
	extended := clientExchange("SERVFAIL", 900, there(0), back(800))
	extended.ExtendedError = &trace.ExtendedError{Code: 6, Name: "DNSSEC Bogus", Text: "no key"}
	for _, tc := range []struct {
		trace *trace.Trace
		want  string
	}{
		{&trace.Trace{QName: "a.test.", RCode: "SERVFAIL", Outcome: trace.OutcomeAnswered, Query: record}, "CoreDNS answered SERVFAIL in its plugin forward: no healthy proxies."},
		{&trace.Trace{QName: "a.test.", Outcome: trace.OutcomeUnanswered, Query: silent}, "CoreDNS ended the query without a response in its plugin acl."},
		{&trace.Trace{QName: "a.test.", RCode: "REFUSED", Outcome: trace.OutcomeAnswered, Query: unverified}, "By a record that is not verified, CoreDNS answered REFUSED."},
		{&trace.Trace{QName: "a.test.", RCode: "SERVFAIL", Outcome: trace.OutcomeAnswered, Exchange: extended}, `The server 10.96.0.10:53 (Service) → 10.244.0.2:53 answered SERVFAIL, extended error 6 DNSSEC Bogus "no key".`},
		{&trace.Trace{QName: "a.test.", Outcome: trace.OutcomeUnanswered, Exchange: lost}, "The query was last seen 91.0 µs after the query left: eth0 in, netns coredns."},
		{dropped, "The kernel dropped the query in netns 4026531840: NETFILTER_DROP, in nft_do_chain."},
		{&trace.Trace{QName: "a.test.", Outcome: trace.OutcomeUnanswered}, "Nothing was seen of its packets."},
	} {
		text := strings.Join(strings.Fields(draw(t, tc.trace, Options{Width: 160})), " ")
		if want := "DIAGNOSIS: no cause is proven · " + tc.want; !strings.Contains(text, want) {
			t.Errorf("want %q:\n%s", want, draw(t, tc.trace, Options{Width: 160}))
		}
	}
}
