package diagnose

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// pathMTU finds messages that were larger than the path lets through, and of which no drop
// tells: an ICMP error says what would have passed; some fragments of a message came and the
// others did not; or a response over TCP was sent again and again in vain, while the small
// packets of its connection passed.
func pathMTU(_ *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, s := range subjects(t) {
		var f trace.Finding
		switch ex := s.exchange; {
		case toldTooBig(ex):
			f = refusedSize(t, s)
		case fragmentLost(ex):
			f = lostFragment(t, s)
		case stuck(ex):
			f = stuckResponse(t, s)
		default:
			continue
		}
		findings = append(findings, f)
	}
	return findings
}

// tooLarge tells whether the size of a message, or of a part of it, kept it from its
// receiver, as far as no drop tells that.
func tooLarge(ex *trace.Exchange) bool { return toldTooBig(ex) || fragmentLost(ex) || stuck(ex) }

const smallerAdvice = "Let ICMP \"packet too big\" pass, or make the MTU the same all the way (`ip link`); `bufsize 1232` in CoreDNS avoids it over UDP."

// droppedTooBig finds a packet that the kernel dropped since it was larger than what
// follows lets through. Proof: the drop's reason or, where there is none, a place that
// frees what does not fit, or an ICMP error that says so of the same message.
func droppedTooBig(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	ex := s.exchange
	if d.Fragment && !dropreason.TooBig(d.Reason, d.Where, true) {
		return droppedFragment(t, s, d), true
	}
	if !dropreason.TooBig(d.Reason, d.Where, large(ex, d.Message)) && !(d.Reason == "" && tooBig(ex.ICMP) && ex.ICMP.Message == d.Message) {
		return trace.Finding{}, false
	}
	f := trace.Finding{Code: PathMTU, Evidence: append(sizeEvidence(ex, d.Message), icmpEvidence(t, ex)...), Advice: smallerAdvice}
	also := ""
	switch i := ex.ICMP; {
	case !tooBig(i) && !incomplete(ex):
		f.Evidence = append(f.Evidence, "no ICMP error that tells its sender was seen")
	case tooBig(i) && i.Direction == trace.DirectionTX:
		also = "; its sender was told"
		f.Advice = "A sender that takes such errors sends the next one smaller; the same MTU all the way, or `bufsize 1232` in CoreDNS, loses none."
	case tooBig(i) && i.Direction == "":
		also = "; the ICMP error, too"
	}
	f.Summary = fmt.Sprintf("%s was too big%s: dropped in %s%s.", capital(droppedWhat(s, d)), sizes(ex, d.Message), droppedWhere(t, d), also)
	return f, true
}

// droppedFragment finds a message that was cut into fragments, of which a later one was
// dropped for whatever reason: without ports, it is what many firewalls drop.
func droppedFragment(t *trace.Trace, s subject, d *trace.Drop) trace.Finding {
	why := "for the reason " + d.Reason
	switch {
	case byNetfilter(d):
		why = "by a firewall rule"
	case d.BPF != "":
		why = "by an eBPF program (" + d.BPF + ")"
	case d.Description != "":
		why = "(" + d.Description + ")"
	case d.Reason == "":
		why = "without a reason"
	}
	return trace.Finding{
		Code:     PathMTU,
		Summary:  fmt.Sprintf("%s was in fragments, and a later one was dropped %s in %s.", capital(droppedWhat(s, d)), why, droppedWhere(t, d)),
		Evidence: fragmentEvidence(s.exchange),
		Advice:   fragmentAdvice,
	}
}

const fragmentAdvice = "Keep responses below the path's MTU: `bufsize 1232` in CoreDNS; see whether a firewall or tunnel on the way drops IP fragments."

// refusedSize tells of a message about which an ICMP error says that it was too big.
func refusedSize(t *trace.Trace, s subject) trace.Finding {
	ex := s.exchange
	what := s.name()
	if ex.ICMP.Message == trace.MessageResponse {
		what = "the response to " + s.name()
	}
	f := trace.Finding{
		Code:     PathMTU,
		Summary:  fmt.Sprintf("%s was too big%s, says an ICMP error from %s.", capital(what), sizes(ex, ex.ICMP.Message), ex.ICMP.From),
		Evidence: append(sizeEvidence(ex, ex.ICMP.Message), icmpEvidence(t, ex)...),
		Advice:   smallerAdvice,
	}
	f.Evidence = appendIncomplete(append(f.Evidence, lastSightings(t, ex)...), ex)
	return f
}

// lostFragment tells of a message of which only some fragments came.
func lostFragment(t *trace.Trace, s subject) trace.Finding {
	ex := s.exchange
	f := trace.Finding{
		Code:     PathMTU,
		Summary:  fmt.Sprintf("The response to %s was in fragments, of which not all came%s.", s.name(), lastPlace(t, ex, trace.MessageResponse)),
		Evidence: fragmentEvidence(ex),
		Advice:   fragmentAdvice,
	}
	if last, ok := lastSighting(t, ex, trace.MessageResponse); ok {
		f.Evidence = append(f.Evidence, last)
	}
	f.Evidence = append(append(f.Evidence, rejections(ex)...), icmpEvidence(t, ex)...)
	return f
}

// stuckResponse tells of a response over TCP that does not get through.
func stuckResponse(t *trace.Trace, s subject) trace.Finding {
	ex := s.exchange
	f := trace.Finding{
		Code: PathMTU,
		Summary: fmt.Sprintf("The response to %s%s does not pass over TCP, small packets do%s.",
			s.name(), sizes(ex, trace.MessageResponse), strings.Replace(lastPlace(t, ex, trace.MessageResponse), "the response", "it", 1)),
		Evidence: append(sizeEvidence(ex, trace.MessageResponse),
			fmt.Sprintf("the server sent %s of it again, and the response did not arrive", english.Plural(ex.ResentSegments, "segment", "")),
			"the connection was opened over the same way, and the client did not send its query again, as it does until that is acknowledged"),
		Advice: smallerAdvice,
	}
	f.Evidence = append(f.Evidence, lastSightings(t, ex)...)
	if ex.ICMP == nil {
		f.Evidence = append(f.Evidence, "no ICMP error that tells the server was seen")
	}
	return f
}

// toldTooBig tells whether an ICMP error says that a message was too big, which did not
// arrive in another way after that.
func toldTooBig(ex *trace.Exchange) bool {
	return ex.Outcome == trace.OutcomeUnanswered && tooBig(ex.ICMP)
}

// tooBig tells whether an ICMP error is about the size of a packet (RFC 1191, RFC 4443).
func tooBig(i *trace.ICMP) bool {
	return i != nil && (i.From.Is4() && i.Type == icmpUnreachable && i.Code == icmpFragmentation || i.From.Is6() && i.Type == icmp6TooBig)
}

// fragmentLost tells whether some fragments of a response were seen nowhere, where the
// tracer lost nothing itself.
func fragmentLost(ex *trace.Exchange) bool {
	f := ex.Fragments
	return f != nil && f.Message == trace.MessageResponse && !f.Complete && ex.Outcome == trace.OutcomeUnanswered && !incomplete(ex)
}

// fewResends is how often a segment is sent again before loss by chance is no reason any
// more.
const fewResends = 3

// stuck tells whether a large response over TCP does not come while small packets do: it
// left several times, and the client did not repeat its query, which the server had
// acknowledged over the same way.
func stuck(ex *trace.Exchange) bool {
	return ex.Protocol == "tcp" && !ex.Connects() && ex.Outcome == trace.OutcomeUnanswered && ex.ResentSegments >= fewResends && ex.Transmissions == 1 &&
		large(ex, trace.MessageResponse) && ex.Milestones.Response.Arrived == trace.NotSeen && ex.Reset == nil && !incomplete(ex)
}

// smallMessage is what passes every path: IPv4 carries packets of 576 bytes at least in
// whole (RFC 791, RFC 1035 section 2.3.4).
const smallMessage = 512

// large tells whether a message has more.
func large(ex *trace.Exchange, message string) bool { return messageSize(ex, message) > smallMessage }

// messageSize is the size of a message in bytes; 0: it is not known.
func messageSize(ex *trace.Exchange, message string) int {
	switch {
	case message == trace.MessageQuery:
		return ex.RequestSize
	case ex.ResponseSize != nil:
		return *ex.ResponseSize
	}
	return 0
}

// sizes says how large a message is, and what would have passed, as far as that is known.
func sizes(ex *trace.Exchange, message string) string {
	n := messageSize(ex, message)
	switch passes := tooBig(ex.ICMP) && ex.ICMP.MTU > 0; {
	case n > 0 && passes:
		return fmt.Sprintf(" (%d bytes; %d pass)", n, ex.ICMP.MTU)
	case n > 0:
		return fmt.Sprintf(" (%d bytes)", n)
	case passes:
		return fmt.Sprintf(" (%d bytes pass)", ex.ICMP.MTU)
	}
	return ""
}

func sizeEvidence(ex *trace.Exchange, message string) []string {
	n := messageSize(ex, message)
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s of %d bytes over %s", message, n, strings.ToUpper(ex.Protocol))}
}

// capital begins a sentence.
func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func fragmentEvidence(ex *trace.Exchange) []string {
	f := ex.Fragments
	if f == nil {
		return nil
	}
	of := "of an unknown number: the last was not seen"
	if f.Size != nil {
		of = fmt.Sprintf("of %d bytes in all", *f.Size)
	}
	return []string{fmt.Sprintf("%s with %d bytes seen, where most of them were, %s", english.Plural(f.Seen, "fragment", ""), f.SeenBytes, of)}
}
