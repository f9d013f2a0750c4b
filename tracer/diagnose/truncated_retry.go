package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// retrySoon is how soon a resolver asks over TCP after a truncated response.
const retrySoon = time.Second

// truncatedRetry finds a lookup over TCP that repeats one whose response over
// UDP did not fit, with the one of them that is reported last. Proof: the first response had TC
// set, and the same client asked the same question over TCP directly after.
func truncatedRetry(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Protocol != "tcp" && !ex.Truncated {
		return nil
	}
	self := newSeen(t, ex)
	cut, again := self, self
	var other *seen // the one that was reported before
	if ex.Protocol == "tcp" {
		other = m.truncatedBefore(t, ex)
		cut = other
	} else if cut.truncated {
		other = m.repeatedAfter(cut)
		again = other
	}
	if other == nil || m.reportedOf(ex, other) {
		return nil
	}
	other.retry = ex.TraceID
	f := trace.Finding{
		Code:    TruncatedRetry,
		Summary: fmt.Sprintf("The answer did not fit into %d bytes over UDP; asking again over TCP made it %s in all.", cut.bufsize, took(again.end.Sub(cut.start))),
		Evidence: []string{
			fmt.Sprintf("the response over UDP, DNS ID %#04x, had %d bytes and TC set (trace %s)", cut.dnsID, cut.size, cut.id),
			fmt.Sprintf("the same question left over TCP %s later: %s", took(again.start.Sub(cut.end)), tcpResult(again)),
		},
		Advice: "Harmless now and then. Else let clients take more (`options edns0`), make the answer smaller, and let TCP port 53 pass.",
	}
	if again.truncated {
		f.Summary = "The answer is truncated, over UDP and over TCP too: the client cannot get all of it."
		f.Advice = "A server must not set TC over TCP (RFC 7766): ask it directly (`dig +tcp @ADDRESS NAME`), and what it forwards to."
	}
	return []trace.Finding{f}
}

// reportedOf tells whether another lookup than ex reported already that one of the two repeats the
// other.
func (m *memory) reportedOf(ex *trace.Exchange, other *seen) bool {
	if !other.retry.IsZero() {
		return other.retry != ex.TraceID
	}
	own := m.own(ex)
	return own != nil && !own.retry.IsZero()
}

// truncatedBefore returns the lookup that one over TCP repeats; nil if there is none. Of
// several it is one of its own call, as far as that is known, and the latest.
func (m *memory) truncatedBefore(t *trace.Trace, ex *trace.Exchange) *seen {
	var best *seen
	for _, s := range m.of(lookupKey{clientOf(ex), ex.QName}) {
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

// repeatedAfter returns the first lookup over TCP that was reported already and repeats a truncated
// one, and no other; nil if there is none.
func (m *memory) repeatedAfter(cut *seen) *seen {
	var first *seen
	all := m.of(cut.key)
	for _, s := range all {
		after := s.start.Sub(cut.end)
		if s.protocol != "tcp" || s.qtype != cut.qtype || after < 0 || after > retrySoon || first != nil && first.start.Before(s.start) ||
			slices.ContainsFunc(all, func(other *seen) bool { return other.retry == s.id }) {
			continue
		}
		first = s
	}
	return first
}

func tcpResult(s *seen) string {
	if !s.answered || s.size == 0 {
		return s.outcome
	}
	return fmt.Sprintf("%s with %d bytes", s.outcome, s.size)
}
