package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// What a call cost is reported with one lookup, and again with what replaces its record: with
// the same number of queries.
func TestSearchPathIsToldWithOneLookup(t *testing.T) {
	d := New()
	reported := func(i int, name, rcode string, replaces bool) (summaries []string) {
		ex := asked()
		ex.Time = ex.Time.Add(time.Duration(i) * time.Millisecond)
		ex.QName, ex.QType, ex.RCode, ex.Outcome, ex.Duration = name, "A", rcode, trace.OutcomeAnswered, trace.SecondsPtr(time.Millisecond/2)
		ex.TraceID = trace.TraceID{1, byte(i)}
		tr := &trace.Trace{Header: ex.Header, Exchange: ex, RCode: rcode, Outcome: ex.Outcome, Resolution: trace.TraceID{1, 0}.String(), Replaces: replaces}
		for _, f := range d.Trace(tr) {
			summaries = append(summaries, f.Summary)
		}
		return summaries
	}
	for i, name := range []string{"www.a.test.svc.cluster.local.", "www.a.test.cluster.local."} {
		if got := reported(i, name, "NXDOMAIN", false); len(got) > 0 {
			t.Error(got)
		}
	}
	for _, replaces := range []bool{false, true, true} {
		if got := reported(2, "www.a.test.", "NOERROR", replaces); len(got) != 1 || !strings.Contains(got[0], "took 3 queries") {
			t.Errorf("replaces %t: %q", replaces, got)
		}
	}
	if got := reported(3, "www.a.test.", "NOERROR", false); len(got) > 0 {
		t.Errorf("told with another: %q", got)
	}
}
