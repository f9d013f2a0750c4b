package diagnose

import (
	"fmt"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// oversizedResponse finds a response over UDP that did not fit: larger than the
// client said it takes (RFC 6891, section 6.2.5; 512 bytes without EDNS), or cut
// into fragments of which some never came. Proof: its size on the wire beside the
// advertised one, or the fragments that were seen.
func oversizedResponse(_ *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, s := range subjects(t) {
		ex := s.exchange
		if ex.Protocol != "udp" {
			continue
		}
		f := trace.Finding{Code: OversizedResponse}
		switch {
		case fragmentLost(ex):
			f.Summary = fmt.Sprintf("A part of the response to %s was lost: it was sent in fragments.", s.name())
			f.Evidence = fragmentEvidence(t, ex)
			f.Advice = "Keep responses below the path's MTU: `bufsize 1232` in CoreDNS; see whether a firewall or tunnel on the way drops IP fragments."
		case ex.ResponseSize != nil && ex.BufSize > 0 && *ex.ResponseSize > ex.BufSize:
			f.Summary = fmt.Sprintf("The response to %s has %d bytes; only %d were asked for.", s.name(), *ex.ResponseSize, ex.BufSize)
			f.Evidence = []string{fmt.Sprintf("response of %d bytes over UDP, advertised size %d bytes, truncated: %t", *ex.ResponseSize, ex.BufSize, ex.Truncated)}
			f.Advice = fmt.Sprintf("The server %s should truncate what its clients cannot take: they may cut or discard such a response.", server(ex))
		default:
			continue
		}
		findings = append(findings, f)
	}
	return findings
}

// fragmentLost tells whether a response's missing fragments kept it from the
// client: some were seen nowhere, where the tracer lost nothing itself, or the
// kernel dropped one.
func fragmentLost(ex *trace.Exchange) bool {
	f := ex.Fragments
	if f == nil || f.Message != trace.MessageResponse {
		return false
	}
	return !f.Complete && ex.Outcome != trace.OutcomeAnswered && !incomplete(ex) || droppedFragment(ex) != nil
}

// droppedFragment returns the last drop of a response in fragments; nil if there is
// none.
func droppedFragment(ex *trace.Exchange) *trace.Drop {
	for i := len(ex.Drops) - 1; i >= 0 && ex.Fragments != nil; i-- {
		if d := &ex.Drops[i]; d.Message == trace.MessageResponse && !noSocket(d) {
			return d
		}
	}
	return nil
}

func fragmentEvidence(t *trace.Trace, ex *trace.Exchange) []string {
	f := ex.Fragments
	of := "of an unknown number: the last was not seen"
	if f.Size != nil {
		of = fmt.Sprintf("of %d bytes in all", *f.Size)
	}
	evidence := []string{fmt.Sprintf("%s with %d bytes seen, where most of them were, %s", english.Plural(f.Seen, "fragment", ""), f.SeenBytes, of)}
	if d := droppedFragment(ex); d != nil {
		evidence = append(evidence, dropQuote(ex, d))
	}
	if last, ok := lastSighting(t, ex, trace.MessageResponse); ok {
		evidence = append(evidence, last)
	}
	return appendIncomplete(evidence, ex)
}
