package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Of several truncated answers to one question, a lookup over TCP repeats that of its own
// call, or the latest before it.
func TestTruncatedRetryIsOfTheRightOne(t *testing.T) {
	const ms = time.Millisecond
	lookup := func(id, call byte, start time.Duration, protocol string) *trace.Trace {
		ex := asked()
		ex.Time = ex.Time.Add(start)
		ex.TraceID, ex.ID, ex.QType, ex.Protocol, ex.Truncated = trace.TraceID{1, id}, uint16(id), "A", protocol, protocol == "udp"
		ex.RCode, ex.Outcome, ex.Duration = "NOERROR", trace.OutcomeAnswered, trace.SecondsPtr(ms)
		tr := &trace.Trace{Header: ex.Header, Exchange: ex, RCode: ex.RCode, Outcome: ex.Outcome}
		if call != 0 {
			tr.Resolution = trace.TraceID{2, call}.String()
		}
		return tr
	}
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
