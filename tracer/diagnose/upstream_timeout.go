package diagnose

import (
	"fmt"
	"math"

	"github.com/dnstrace/dnstrace/trace"
)

// upstreamTimeout finds upstreams that were silent, in a chain of servers at
// every step. Proof: CoreDNS's attempt ended at its timeout, or the upstream
// query left, nothing came back, and the tracer lost nothing meanwhile.
func upstreamTimeout(_ *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		timedOut := u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeTimeout
		noAnswer := u.Exchange != nil && u.Exchange.Outcome == trace.OutcomeUnanswered && u.Exchange.RCode == "" && !incomplete(u.Exchange)
		// A dropped one has a finding of its own, and so has a lost fragment.
		if u.Exchange != nil && (u.Exchange.Outcome == trace.OutcomeDropped || fragmentLost(u.Exchange)) || !timedOut && !noAnswer {
			return
		}
		findings = append(findings, trace.Finding{
			Code:     UpstreamTimeout,
			Summary:  fmt.Sprintf("The upstream %s did not answer%s.", address(u), cost(u)),
			Evidence: timeoutEvidence(u),
			Advice:   "Ask it from the server's namespace (`dig @ADDRESS NAME`); if it is gone for good, take it out of the server's upstreams.",
		})
	})
	return findings
}

func address(u *trace.Upstream) string {
	switch {
	case u.Attempt == nil:
		return server(u.Exchange)
	case u.Attempt.Address == "":
		return fmt.Sprintf("of attempt %d (CoreDNS does not tell its address)", u.Attempt.Attempt)
	}
	return u.Attempt.Address
}

func cost(u *trace.Upstream) string {
	if u.Attempt == nil || u.Attempt.Duration == nil {
		return ""
	}
	return ", which cost the lookup " + since(*u.Attempt.Duration)
}

func timeoutEvidence(u *trace.Upstream) []string {
	var evidence []string
	if at := u.Attempt; at != nil {
		text := fmt.Sprintf("CoreDNS's %s ended as %s", attemptName(at), at.Outcome)
		if at.Duration != nil {
			text += " after " + since(*at.Duration)
		}
		if at.Error != "" {
			text += ": " + at.Error
		}
		evidence = append(evidence, text)
	}
	ex := u.Exchange
	switch {
	case ex == nil:
		evidence = append(evidence, "its packets were not observed")
	case ex.RCode != "" || ex.Duration != nil:
		evidence = append(evidence, fmt.Sprintf("a response came too late: query with ID %d, answered %s", ex.ID, orNone(ex.RCode)))
	default:
		seen := "nothing came back"
		if incomplete(ex) {
			seen = "nothing was seen to come back"
		}
		evidence = append(evidence, fmt.Sprintf("its query with ID %d left from %s port %d and %s", ex.ID, ex.ClientIP, ex.ClientPort, seen))
		if s := lastSeen(ex, trace.MessageQuery, math.MaxInt64); s != nil {
			evidence = append(evidence, fmt.Sprintf("it was last seen at device %s (%s) in %s", s.IfName, s.Direction, netns(s.NetNSName, s.NetNS)))
		}
		evidence = appendInferred(evidence, u)
	}
	return appendIncomplete(evidence, ex)
}
