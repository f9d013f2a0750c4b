package diagnose

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A server asks an upstream for many names at once, that answers A of each and ignores AAAA: by
// the time that the first of them is given up, more names were asked for than are remembered of
// an upstream, and it is reported of each all the same.
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

// Two upstreams that ignore a type are one cause; one beside them that is silent for all is
// another.
func TestTypeIgnoredByTwoUpstreams(t *testing.T) {
	const one, two = "192.0.2.1:53", "192.0.2.2:53"
	lookup := func(i int, name, qtype string, upstreams ...string) *trace.Trace {
		ex := asked()
		ex.Time, ex.QName, ex.QType = ex.Time.Add(time.Duration(i)*10*time.Millisecond), name, qtype
		ex.TraceID, ex.ID = trace.TraceID{byte(i), byte(len(qtype))}, uint16(i)
		ex.RCode, ex.Outcome, ex.Duration = "NOERROR", trace.OutcomeAnswered, trace.SecondsPtr(time.Millisecond)
		tr := &trace.Trace{Header: ex.Header, QName: name, QType: qtype, Exchange: ex, Outcome: ex.Outcome}
		for n, to := range upstreams {
			outcome := trace.OutcomeTimeout
			if qtype == "A" {
				outcome = trace.OutcomeOK
			}
			if name == "dead.example." && to == two {
				outcome = trace.OutcomeTimeout
			}
			tr.Upstreams = append(tr.Upstreams, trace.Upstream{Join: trace.JoinNone, Attempt: &trace.Attempt{Attempt: n + 1, Address: to, Outcome: outcome}})
		}
		tr.RCode = ex.RCode
		return tr
	}
	for _, tc := range []struct {
		name  string
		first []*trace.Trace
		last  *trace.Trace
		want  []string
	}{
		{"both are proven", []*trace.Trace{lookup(1, "a.example.", "A", one), lookup(2, "a.example.", "A", two)}, lookup(3, "a.example.", "AAAA", one, two, one, two),
			[]string{"The upstreams 192.0.2.1:53 and 192.0.2.2:53 answer A of a.example. and ignore AAAA."}},
		{"one is proven", []*trace.Trace{lookup(1, "a.example.", "A", one)}, lookup(3, "a.example.", "AAAA", one, two, one),
			[]string{"The upstream 192.0.2.1:53 answers A of a.example. and ignores AAAA; 192.0.2.2:53 did not answer it either."}},
		{"each was asked once", []*trace.Trace{lookup(1, "a.example.", "A", one), lookup(2, "b.example.", "A", two)}, lookup(3, "a.example.", "AAAA", one, two),
			[]string{"The upstream 192.0.2.1:53 answers A of a.example. and ignores AAAA; 192.0.2.2:53 did not answer it either."}},
		{"one is dead", []*trace.Trace{lookup(1, "a.example.", "A", one), lookup(2, "dead.example.", "A", two)}, lookup(3, "a.example.", "AAAA", one, two, one),
			[]string{"The upstream 192.0.2.1:53 answers A of a.example. and ignores AAAA.", "The upstream 192.0.2.2:53 did not answer."}},
	} {
		d := New()
		for _, tr := range tc.first {
			d.Trace(tr)
		}
		var got []string
		for _, f := range d.Trace(tc.last) {
			got = append(got, f.Summary)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
