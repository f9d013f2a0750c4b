package diagnose

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// truncatedNotRetried finds a client that leaves it at a truncated answer. Proof: the
// response over UDP had TC set and arrived at the client, and for a second, in which nothing
// was lost or left out, the client was not seen to open a connection, to ask over one, or to
// ask over UDP for a larger answer; a resolver does so at once (RFC 7766, section 5).
func truncatedNotRetried(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || !t.Stopped || ex.Protocol != "udp" || !ex.Milestones.Response.Arrived.Seen() {
		return nil
	}
	if cut := newSeen(t, ex); !cut.truncated || m.askedMore(cut) {
		return nil
	}
	f := trace.Finding{
		Code:    TruncatedNotRetried,
		Summary: fmt.Sprintf("The answer did not fit into %s over UDP, and the client never asked over TCP: it has %s of it.", fitting(ex), part(ex)),
		Evidence: []string{
			fmt.Sprintf("the response, DNS ID %#04x, had TC set and %s in its answer", ex.ID, part(ex)),
			fmt.Sprintf("%s asked nothing over TCP, and for no larger answer, within 1 s of it", who(ex)),
		},
		Advice: "Use a client that can ask over TCP (musl since 1.2.4, Alpine since 3.18), or make the answer smaller.",
	}
	if last, ok := lastSighting(t, ex, trace.MessageResponse); ok {
		f.Evidence = append(f.Evidence, last)
	}
	return []trace.Finding{f}
}

// askedMore tells whether the client of a truncated answer was reported to have asked over
// TCP, or for a larger answer, or to have had a whole one.
func (m *memory) askedMore(cut *seen) bool {
	again := slices.ContainsFunc(m.of(cut.key), func(s *seen) bool {
		after := !s.start.Before(cut.end) && s.start.Sub(cut.end) <= retrySoon
		switch {
		case s.qtype != cut.qtype:
			return false
		case s.protocol == "tcp" || s.bufsize > cut.bufsize:
			return after
		}
		return s.dnsID == cut.dnsID && s.answered && !s.truncated
	})
	return again || slices.ContainsFunc(m.of(lookupKey{client: cut.key.client}), func(s *seen) bool {
		return s.protocol == "tcp" && !s.start.Before(cut.end) && s.start.Sub(cut.end) <= retrySoon
	})
}

// fitting says how large an answer a client takes over UDP.
func fitting(ex *trace.Exchange) string {
	if ex.BufSize == 0 {
		return "512 bytes"
	}
	return english.Plural(ex.BufSize, "byte", "")
}

// part is how much of an answer came.
func part(ex *trace.Exchange) string {
	switch {
	case ex.AnswerCount == nil:
		return "an unknown part"
	case *ex.AnswerCount == 0:
		return "nothing"
	}
	return english.Plural(*ex.AnswerCount, "record", "")
}
