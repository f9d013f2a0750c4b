package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// truncatedLookup is one that was truncated over UDP, or asked over TCP, as one of a call.
func truncatedLookup(id, call byte, start time.Duration, protocol string) *trace.Trace {
	ex := asked()
	ex.Time = ex.Time.Add(start)
	ex.TraceID, ex.ID, ex.QType, ex.Protocol, ex.Truncated = trace.TraceID{1, id}, uint16(id), "A", protocol, protocol == "udp"
	ex.RCode, ex.Outcome, ex.Duration = "NOERROR", trace.OutcomeAnswered, trace.SecondsPtr(time.Millisecond)
	tr := &trace.Trace{Header: ex.Header, Exchange: ex, RCode: ex.RCode, Outcome: ex.Outcome}
	if call != 0 {
		tr.Resolution = trace.TraceID{2, call}.String()
	}
	return tr
}

// In whatever order the two are reported, and reported again, it is said once, with the one that is
// reported last at first; another that was truncated at the time is not repeated by the same.
func TestTruncatedRetryInAnyOrder(t *testing.T) {
	const ms = time.Millisecond
	again := func(tr *trace.Trace) *trace.Trace { tr.Replaces = true; return tr }
	udp := func() *trace.Trace { return truncatedLookup(1, 0, 0, "udp") }
	tcp := func() *trace.Trace { return truncatedLookup(9, 0, 10*ms, "tcp") }
	for _, tc := range []struct {
		name     string
		reported []*trace.Trace
		want     string // for each, whether it has the finding
	}{
		{"in order", []*trace.Trace{udp(), tcp()}, "-+"},
		{"the second first", []*trace.Trace{tcp(), udp()}, "-+"},
		{"in order, both again", []*trace.Trace{udp(), tcp(), again(udp()), again(tcp())}, "-+-+"},
		{"the second first, both again", []*trace.Trace{tcp(), udp(), again(udp()), again(tcp())}, "-++-"},
		{"another as well", []*trace.Trace{udp(), tcp(), truncatedLookup(2, 0, 2*ms, "udp")}, "-+-"},
		{"not one before it", []*trace.Trace{tcp(), truncatedLookup(2, 0, 15*ms, "udp")}, "--"},
	} {
		d, got := New(), ""
		for _, tr := range tc.reported {
			switch found := d.Trace(tr); {
			case len(found) == 0:
				got += "-"
			case len(found) == 1 && found[0].Code == TruncatedRetry && strings.Contains(found[0].Summary, "11.0 ms in all") && strings.Contains(found[0].Evidence[0], "0x0001"):
				got += "+"
			default:
				t.Errorf("%s: %+v", tc.name, found)
			}
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Of several truncated answers to one question, a lookup over TCP repeats that of its own
// call, or the latest before it.
func TestTruncatedRetryIsOfTheRightOne(t *testing.T) {
	const ms = time.Millisecond
	lookup := truncatedLookup
	for _, tc := range []struct {
		name   string
		before []*trace.Trace
		tcp    *trace.Trace
		of     string // DNS ID; empty: none
	}{
		{"the only one", []*trace.Trace{lookup(1, 0, 0, "udp")}, lookup(9, 0, 10*ms, "tcp"), "0x0001"},
		{"the latest", []*trace.Trace{lookup(1, 0, 0, "udp"), lookup(2, 0, 5*ms, "udp")}, lookup(9, 0, 10*ms, "tcp"), "0x0002"},
		{"that of its call", []*trace.Trace{lookup(1, 1, 0, "udp"), lookup(2, 2, 5*ms, "udp")}, lookup(9, 1, 10*ms, "tcp"), "0x0001"},
		{"not one after it", []*trace.Trace{lookup(1, 0, 0, "udp"), lookup(2, 0, 15*ms, "udp")}, lookup(9, 0, 10*ms, "tcp"), "0x0001"},
		{"too long ago", []*trace.Trace{lookup(1, 0, 0, "udp")}, lookup(9, 0, 3*time.Second, "tcp"), ""},
	} {
		d := New()
		for _, tr := range tc.before {
			d.Trace(tr)
		}
		found := d.Trace(tc.tcp)
		if tc.of == "" && len(found) == 0 {
			continue
		}
		if len(found) != 1 || found[0].Code != TruncatedRetry || tc.of == "" || !strings.Contains(found[0].Evidence[0], tc.of) {
			t.Errorf("%s: %+v", tc.name, found)
		}
	}
}

// A server that sets TC over TCP too has no answer for its client.
func TestTruncatedOverTCP(t *testing.T) {
	d := New()
	d.Trace(truncatedLookup(1, 0, 0, "udp"))
	tcp := truncatedLookup(9, 0, 10*time.Millisecond, "tcp")
	tcp.Exchange.Truncated = true
	if found := d.Trace(tcp); len(found) != 1 || found[0].Code != TruncatedRetry || !strings.Contains(found[0].Summary, "over TCP too") {
		t.Errorf("%+v", found)
	}
}
