package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// retrySoon is how soon a resolver asks over TCP after a truncated response.
const retrySoon = time.Second

// truncatedRetry finds a lookup over TCP that repeats one whose response over
// UDP did not fit, with the second of the two. Proof: the first response had TC
// set, and the same client asked the same question over TCP directly after.
func truncatedRetry(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Protocol != "tcp" {
		return nil
	}
	s := m.truncatedBefore(t, ex)
	if s == nil {
		return nil
	}
	over := ex.Time
	if ex.Duration != nil {
		over = ex.Time.Add(ex.Duration.Duration())
	}
	return []trace.Finding{{
		Code:    TruncatedRetry,
		Summary: fmt.Sprintf("The answer did not fit into %d bytes over UDP; asking again over TCP made it %s in all.", s.bufsize, took(over.Sub(s.start))),
		Evidence: []string{
			fmt.Sprintf("the response over UDP, DNS ID %#04x, had %d bytes and TC set (trace %s)", s.dnsID, s.size, s.id),
			fmt.Sprintf("the same question left over TCP %s later: %s", took(ex.Time.Sub(s.end)), tcpResult(ex)),
		},
		Advice: "Harmless now and then. Else let clients take more (`options edns0`), make the answer smaller, and let TCP port 53 pass.",
	}}
}

// truncatedBefore returns the lookup that one over TCP repeats; nil if there is none. Of
// several it is one of its own call, as far as that is known, and the latest.
func (m *memory) truncatedBefore(t *trace.Trace, ex *trace.Exchange) *seen {
	var best *seen
	for _, s := range m.lookups[lookupKey{clientOf(ex), ex.QName}] {
		after := ex.Time.Sub(s.end)
		if !s.truncated || s.protocol != "udp" || s.qtype != ex.QType || after < 0 || after > retrySoon {
			continue
		}
		own := func(s *seen) bool { return s.call == callID(t) }
		if best == nil || own(s) && !own(best) || own(s) == own(best) && s.end.After(best.end) {
			best = s
		}
	}
	return best
}

func tcpResult(ex *trace.Exchange) string {
	if ex.Outcome != trace.OutcomeAnswered || ex.ResponseSize == nil {
		return ex.Outcome
	}
	return fmt.Sprintf("%s with %d bytes", ex.Outcome, *ex.ResponseSize)
}
