package diagnose_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

func TestTheCauseComesFirst(t *testing.T) {
	for _, c := range []struct {
		why         string
		found, want []string
	}{
		{
			"that the client gave up follows from what took so long",
			[]string{diagnose.ClientGaveUp, diagnose.UpstreamTimeout, diagnose.UpstreamUnhealthy},
			[]string{diagnose.UpstreamTimeout, diagnose.UpstreamUnhealthy, diagnose.ClientGaveUp},
		},
		{
			"what only costs time comes last",
			[]string{diagnose.TruncatedRetry, diagnose.Retransmission, diagnose.ClientGaveUp, diagnose.SlowUpstream},
			[]string{diagnose.SlowUpstream, diagnose.ClientGaveUp, diagnose.TruncatedRetry, diagnose.Retransmission},
		},
		{
			"of a search list that ended, the name was not asked, whoever failed",
			[]string{diagnose.UpstreamError, diagnose.SearchPathShadowed},
			[]string{diagnose.SearchPathShadowed, diagnose.UpstreamError},
		},
		{
			"what happened to the client's packets is why it got nothing, whatever else was slow",
			[]string{diagnose.ResponseLost, diagnose.UpstreamTimeout},
			[]string{diagnose.ResponseLost, diagnose.UpstreamTimeout},
		},
		{
			"two drops stay in order of time",
			[]string{diagnose.DroppedByNetfilter, diagnose.DroppedByBPF},
			[]string{diagnose.DroppedByNetfilter, diagnose.DroppedByBPF},
		},
	} {
		var all []trace.Finding
		for _, code := range c.found {
			all = append(all, trace.Finding{Code: code})
		}
		diagnose.Order(all)
		if got := codesOf(all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
	doubt := []trace.Finding{{Code: diagnose.UpstreamTimeout, InDoubt: true}, {Code: diagnose.UpstreamError}}
	diagnose.Order(doubt)
	if got := codesOf(doubt); !slices.Equal(got, []string{diagnose.UpstreamError, diagnose.UpstreamTimeout}) {
		t.Errorf("what is in doubt comes first: %q", got)
	}
}

// The client gets the code that its last upstream answered: attempts that timed out before
// it cost time only.
func TestWhatEndedTheLookupComesFirst(t *testing.T) {
	silent := trace.Upstream{
		Attempt:  &trace.Attempt{Attempt: 1, Address: "192.0.2.1:53", Outcome: trace.OutcomeTimeout},
		Exchange: upstreamTo("192.0.2.1", trace.OutcomeUnanswered, ""), Join: trace.JoinExact,
	}
	refusing := trace.Upstream{
		Attempt:  &trace.Attempt{Attempt: 2, Address: "192.0.2.2:53", Outcome: trace.OutcomeOK},
		Exchange: upstreamTo("192.0.2.2", trace.OutcomeAnswered, "REFUSED"), Join: trace.JoinExact,
	}
	for _, c := range []struct {
		upstreams []trace.Upstream
		rcode     string
		want      []string
	}{
		{[]trace.Upstream{silent, refusing}, "REFUSED", []string{diagnose.UpstreamError, diagnose.UpstreamTimeout}},
		{[]trace.Upstream{refusing, silent}, "SERVFAIL", []string{diagnose.UpstreamTimeout, diagnose.UpstreamError}},
	} {
		tr := &trace.Trace{QName: "a.test.", QType: "A", RCode: c.rcode, Outcome: trace.OutcomeAnswered, Upstreams: c.upstreams}
		if got := codesOf(diagnose.New().Trace(tr)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.rcode, got, c.want)
		}
	}
}

func codesOf(all []trace.Finding) []string {
	var codes []string
	for i := range all {
		codes = append(codes, all[i].Code)
	}
	return codes
}

func upstreamTo(ip, outcome, rcode string) *trace.Exchange {
	return &trace.Exchange{DNS: trace.DNS{QName: "a.test.", QType: "A", Protocol: "udp", RCode: rcode}, ServerIP: netip.MustParseAddr(ip), ServerPort: 53, Outcome: outcome, Transmissions: 1}
}
