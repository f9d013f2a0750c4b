package diagnose

import (
	"fmt"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A server asks an upstream for many names at once, that answers A of each and ignores AAAA: by
// the time that the first of them is given up, more names were asked for than are remembered of
// an upstream, and it is told of each all the same.
func TestTypeIgnoredOfABusyServer(t *testing.T) {
	const names, upstream = 200, "192.0.2.1:53"
	lookup := func(i int, qtype string, attempts ...string) *trace.Trace {
		ex := asked()
		ex.Time, ex.QName, ex.QType = ex.Time.Add(time.Duration(i)*10*time.Millisecond), fmt.Sprintf("n%d.example.", i), qtype
		ex.TraceID, ex.ID = trace.TraceID{byte(i), byte(len(qtype))}, uint16(i)
		ex.RCode, ex.Outcome, ex.Duration = "NOERROR", trace.OutcomeAnswered, trace.SecondsPtr(time.Millisecond)
		tr := &trace.Trace{Header: ex.Header, QName: ex.QName, QType: qtype, Exchange: ex, Outcome: ex.Outcome}
		for n, outcome := range attempts {
			if outcome != trace.OutcomeOK {
				ex.RCode, ex.Duration = "SERVFAIL", trace.SecondsPtr(4*time.Second)
			}
			tr.Upstreams = append(tr.Upstreams, trace.Upstream{Join: trace.JoinNone, Attempt: &trace.Attempt{Attempt: n + 1, Address: upstream, Outcome: outcome}})
		}
		tr.RCode = ex.RCode
		return tr
	}
	d := New()
	for i := range names {
		if found := d.Trace(lookup(i, "A", trace.OutcomeOK)); len(found) != 0 {
			t.Errorf("%+v", found)
		}
	}
	for i := range names {
		found := d.Trace(lookup(i, "AAAA", trace.OutcomeTimeout, trace.OutcomeTimeout))
		if len(found) != 1 || found[0].Code != TypeIgnored {
			t.Fatalf("n%d: %+v", i, found)
		}
	}
	// An answer that is of no upstream, as out of a cache, proves nothing of one.
	d = New()
	d.Trace(lookup(0, "A"))
	if found := d.Trace(lookup(0, "AAAA", trace.OutcomeTimeout, trace.OutcomeTimeout)); len(found) != 1 || found[0].Code != UpstreamTimeout {
		t.Errorf("%+v", found)
	}
}
