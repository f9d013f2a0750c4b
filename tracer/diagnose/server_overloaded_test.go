package diagnose

import (
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// How long a query waited is known by the clock of the server's node alone,
// however far that is from the client's.
func TestWaitOnAnotherClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, 2 * time.Second, -2 * time.Second} {
		for _, wait := range []time.Duration{time.Millisecond, 600 * time.Millisecond} {
			answered := wait + 2*time.Millisecond
			ex := &trace.Exchange{Outcome: trace.OutcomeAnswered, DNS: trace.DNS{RCode: "NOERROR", Duration: trace.SecondsPtr(answered + time.Millisecond)}}
			see(ex, trace.MessageQuery, trace.DirectionTX, "client", 0)
			see(ex, trace.MessageQuery, trace.DirectionRX, "server", time.Millisecond)
			see(ex, trace.MessageResponse, trace.DirectionTX, "server", answered)
			see(ex, trace.MessageResponse, trace.DirectionRX, "client", answered+time.Millisecond)
			ex.Milestones.Query = trace.Progress{Left: trace.MilestoneAt(0), Arrived: trace.MilestoneAt(1)}
			ex.Milestones.Response = trace.Progress{Left: trace.MilestoneAt(2), Arrived: trace.MilestoneAt(3)}
			ex.Time = epoch
			q := &trace.Query{Outcome: trace.OutcomeAnswered, DNS: trace.DNS{Duration: trace.SecondsPtr(time.Millisecond)}}
			q.Time = epoch.Add(time.Millisecond + wait + ahead)
			tr := &trace.Trace{Header: ex.Header, Exchange: ex, Query: q, Outcome: ex.Outcome}
			if ahead != 0 {
				tr.ClockOffset = trace.SecondsPtr(ahead)
			}
			var codes []string
			for _, f := range New().Trace(tr) {
				codes = append(codes, f.Code)
			}
			if got := slices.Contains(codes, ServerOverloaded); got != (wait > longWait) {
				t.Errorf("%s ahead, waited %s: %v", ahead, wait, codes)
			}
		}
	}
}
