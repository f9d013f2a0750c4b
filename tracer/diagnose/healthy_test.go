package diagnose

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// What is out of the ordinary is looked at by all rules.
func TestOnlyTheOrdinaryIsHealthy(t *testing.T) {
	ordinary := func() *trace.Trace {
		size := 60
		ex := &trace.Exchange{DNS: trace.DNS{Protocol: "udp", RCode: "NOERROR", BufSize: 512, ResponseSize: &size, Duration: trace.SecondsPtr(time.Millisecond)},
			Outcome: trace.OutcomeAnswered, Transmissions: 1}
		return &trace.Trace{Exchange: ex, RCode: "NOERROR", Outcome: trace.OutcomeAnswered, Duration: ex.DNS.Duration}
	}
	if !healthy(ordinary()) {
		t.Error("an ordinary lookup is not healthy")
	}
	for name, change := range map[string]func(*trace.Trace, *trace.Exchange){
		"no packets":       func(t *trace.Trace, _ *trace.Exchange) { t.Exchange = nil },
		"a record":         func(t *trace.Trace, _ *trace.Exchange) { t.Query = &trace.Query{} },
		"an upstream":      func(t *trace.Trace, _ *trace.Exchange) { t.Upstreams = []trace.Upstream{{}} },
		"a server's query": func(t *trace.Trace, _ *trace.Exchange) { t.Role = trace.RoleUpstream },
		"not gone on with": func(t *trace.Trace, _ *trace.Exchange) { t.Stopped = true },
		"TCP":              func(_ *trace.Trace, ex *trace.Exchange) { ex.Protocol = "tcp" },
		"unanswered":       func(_ *trace.Trace, ex *trace.Exchange) { ex.Outcome = trace.OutcomeUnanswered },
		"an error":         func(_ *trace.Trace, ex *trace.Exchange) { ex.RCode = "SERVFAIL" },
		"truncated":        func(_ *trace.Trace, ex *trace.Exchange) { ex.Truncated = true },
		"of no length":     func(_ *trace.Trace, ex *trace.Exchange) { ex.DNS.Duration = nil },
		"slow":             func(_ *trace.Trace, ex *trace.Exchange) { ex.DNS.Duration = trace.SecondsPtr(longWait) },
		"sent twice":       func(_ *trace.Trace, ex *trace.Exchange) { ex.Transmissions = 2 },
		"a drop":           func(_ *trace.Trace, ex *trace.Exchange) { ex.Drops = []trace.Drop{{}} },
		"a rejected one":   func(_ *trace.Trace, ex *trace.Exchange) { ex.Rejected = []trace.Rejection{{}} },
		"an ICMP error":    func(_ *trace.Trace, ex *trace.Exchange) { ex.ICMP = &trace.ICMP{} },
		"in fragments":     func(_ *trace.Trace, ex *trace.Exchange) { ex.Fragments = &trace.Fragments{} },
		"too large":        func(_ *trace.Trace, ex *trace.Exchange) { ex.BufSize = 59 },
	} {
		tr := ordinary()
		if change(tr, tr.Exchange); healthy(tr) {
			t.Errorf("%s: healthy", name)
		}
	}
}
