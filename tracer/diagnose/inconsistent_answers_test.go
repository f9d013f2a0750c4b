package diagnose

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// What contradicts an answer, and what does not.
func TestInconsistentAnswers(t *testing.T) {
	lookup := func(id byte, qtype, rcode string, records int, change func(*trace.Trace)) *trace.Trace {
		ex := asked()
		ex.QType, ex.RCode, ex.Outcome, ex.AnswerCount, ex.ID = qtype, rcode, trace.OutcomeAnswered, &records, uint16(id)
		ex.Duration, ex.ServerIP = trace.SecondsPtr(time.Millisecond), netip.MustParseAddr("10.96.0.10")
		ex.TraceID = trace.TraceID{1, id}
		call := trace.TraceID{1, 1}
		tr := &trace.Trace{Header: ex.Header, Exchange: ex, QType: qtype, RCode: rcode, Outcome: ex.Outcome, Resolution: call.String(), ResolutionJoin: trace.JoinExact}
		if change != nil {
			change(tr)
		}
		return tr
	}
	otherServer := func(tr *trace.Trace) { tr.Exchange.ServerIP = netip.MustParseAddr("10.96.0.11") }
	otherCall := func(tr *trace.Trace) { tr.Resolution = "" }
	for _, tc := range []struct {
		name     string
		a, aaaa  *trace.Trace
		expected bool
	}{
		{"NXDOMAIN beside an address", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "AAAA", "NXDOMAIN", 0, nil), true},
		{"an address beside NXDOMAIN", lookup(1, "A", "NXDOMAIN", 0, nil), lookup(2, "AAAA", "NOERROR", 1, nil), true},
		{"NXDOMAIN beside no data", lookup(1, "A", "NOERROR", 0, nil), lookup(2, "AAAA", "NXDOMAIN", 0, nil), true},
		{"SERVFAIL beside an address: an error has a finding of its own", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "AAAA", "SERVFAIL", 0, nil), false},
		{"no data beside an address", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "AAAA", "NOERROR", 0, nil), false},
		{"SERVFAIL beside no data", lookup(1, "A", "NOERROR", 0, nil), lookup(2, "AAAA", "SERVFAIL", 0, nil), false},
		{"NXDOMAIN for both", lookup(1, "A", "NXDOMAIN", 0, nil), lookup(2, "AAAA", "NXDOMAIN", 0, nil), false},
		{"two servers", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "AAAA", "NXDOMAIN", 0, otherServer), false},
		{"two calls", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "AAAA", "NXDOMAIN", 0, otherCall), false},
		{"another type", lookup(1, "A", "NOERROR", 1, nil), lookup(2, "SRV", "NXDOMAIN", 0, nil), false},
		{"truncated", lookup(1, "A", "NOERROR", 0, func(tr *trace.Trace) { tr.Exchange.Truncated = true }), lookup(2, "AAAA", "NXDOMAIN", 0, nil), false},
	} {
		d := New()
		findings := func(tr *trace.Trace) (n int) {
			for _, f := range d.Trace(tr) {
				if f.Code == InconsistentAnswers {
					n++
				}
			}
			return n
		}
		if n := findings(tc.a); n != 0 {
			t.Errorf("%s: told with the first", tc.name)
		}
		if n := findings(tc.aaaa); (n == 1) != tc.expected {
			t.Errorf("%s: told %d times with the second", tc.name, n)
		}
		// What replaces the record says so again; another lookup of the call does not.
		tc.aaaa.Replaces = true
		if n := findings(tc.aaaa); (n == 1) != tc.expected {
			t.Errorf("%s: told %d times when the second is told again", tc.name, n)
		}
		if n := findings(lookup(3, "AAAA", "NXDOMAIN", 0, nil)); tc.expected && n != 0 {
			t.Errorf("%s: told again", tc.name)
		}
	}
}
