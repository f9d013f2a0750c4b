package render

import (
	"fmt"
	"math"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// verdict says how the lookup ended.
func verdict(t *trace.Trace) (string, tone) {
	after := ""
	if t.Duration != nil {
		after = " in " + took(t.Duration.Duration())
	}
	switch {
	case diagnose.WentOn(t):
		return "NO RESPONSE taken: the client had gone on", plain
	case t.Exchange != nil && diagnose.ClientClosed(t.Exchange):
		return "NO RESPONSE taken: the client's socket was closed", bad
	case t.Outcome == trace.OutcomeDropped && rejected(t.Exchange):
		return "NO RESPONSE: REJECTED on the way" + lostWay(t), bad
	case t.Outcome == trace.OutcomeDropped:
		return "NO RESPONSE: DROPPED on the way" + lostWay(t), bad
	case t.Outcome == trace.OutcomeUnanswered && t.Exchange != nil && len(t.Exchange.Rejected) > 0:
		return "NO RESPONSE that could be taken", bad
	case t.Outcome == trace.OutcomeUnanswered && lostPackets(t):
		return "NO RESPONSE was seen, but the tracer lost packets", bad
	case t.Outcome == trace.OutcomeUnanswered:
		return "NO RESPONSE was seen", bad
	case t.RCode == "NOERROR":
		return t.RCode + after, good
	case t.RCode == "NXDOMAIN":
		return t.RCode + after, plain
	case t.RCode != "":
		return clean(t.RCode) + after, bad
	}
	return clean(t.Outcome) + after, plain
}

// lostPackets tells whether the tracer may have missed some of the lookup: then
// that nothing was seen does not prove that there was nothing.
func lostPackets(t *trace.Trace) bool { return t.Exchange != nil && t.Exchange.Incomplete() }

// rejected tells whether the sender of a query was told that it was not taken, by an ICMP error or a
// reset: it need not wait for a response.
func rejected(ex *trace.Exchange) bool {
	if ex == nil || ex.LastDrop() == nil || ex.LastDrop().Message != trace.MessageQuery {
		return false
	}
	return ex.ICMP != nil && ex.ICMP.Message == trace.MessageQuery || ex.Connects() && ex.Reset != nil && ex.Reset.Src.Addr() != ex.ClientIP
}

// lostWay says on which way a packet was dropped.
func lostWay(t *trace.Trace) string {
	if t.Exchange == nil || t.Exchange.LastDrop() == nil {
		return ""
	}
	if t.Exchange.LastDrop().Message == trace.MessageResponse {
		return " back"
	}
	return " there"
}

// cause says under the title why: the findings, the first with what to do next. Where there
// is none it says that nothing is wrong, or who ended the lookup.
func (d *drawing) cause(t *trace.Trace, p *places) {
	_, tn := verdict(t)
	switch {
	case len(t.Diagnosis) > 0:
		d.findings(t.Diagnosis, func(*trace.Finding) string { return "" })
	case tn == bad:
		d.headed(warning, "DIAGNOSIS: no cause is proven", ended(t, p))
	case diagnose.WentOn(t):
		d.headed(good, "DIAGNOSIS: nothing wrong was found", "The client had gone on when the response came: it asks over TCP, or has another server's answer.")
	default:
		d.line(d.paint(good, " DIAGNOSIS: nothing wrong was found"))
	}
}

// findings are reported in one sentence each, of says of which lookup where there are several.
func (d *drawing) findings(all []trace.Finding, of func(*trace.Finding) string) {
	for i := range all {
		f := &all[i]
		name := "ALSO: "
		if i == 0 {
			name = "DIAGNOSIS: "
		}
		d.headed(bad, name+findingName(f)+of(f), clean(f.Summary))
		if i == 0 {
			d.advice(f)
		}
	}
}

// findingName is a finding's code, with the doubt that there is.
func findingName(f *trace.Finding) string {
	if f.InDoubt {
		return clean(f.Code) + " (in doubt)"
	}
	return clean(f.Code)
}

func (d *drawing) advice(f *trace.Finding) {
	if f.Advice != "" {
		d.item(warning, "   do next → ", f.Advice)
	}
}

// headed writes a sentence behind its head, and goes on beneath it.
func (d *drawing) headed(t tone, head, text string) {
	for i, l := range wrap(head+" · "+text, d.width-3) {
		if rest, ok := strings.CutPrefix(l, head); ok && i == 0 {
			l = d.paint(t, head) + rest
		}
		if i > 0 {
			l = "  " + l
		}
		d.line(" " + l)
	}
}

// evidence quotes what was seen of each finding. The first one's summary and advice stand on top.
func (d *drawing) evidence(t *trace.Trace) {
	for i := range t.Diagnosis {
		f := &t.Diagnosis[i]
		if len(f.Evidence) == 0 && (i == 0 || f.Advice == "") {
			continue
		}
		d.out.WriteByte('\n')
		d.line(d.paint(strong, fit(" EVIDENCE of "+findingName(f), d.width)))
		for _, e := range f.Evidence {
			d.item(faint, "   · ", e)
		}
		if i > 0 {
			d.advice(f)
		}
	}
}

// ended says of a failed lookup who ended it, where and in which words of its own.
func ended(t *trace.Trace, p *places) string {
	e := t.Exchange
	switch {
	case t.Outcome == trace.OutcomeDropped && e != nil && e.LastDrop() != nil:
		drop := e.LastDrop()
		reason := drop.Reason
		if reason == "" {
			reason = "without a reason"
		}
		return clean(fmt.Sprintf("The kernel dropped the %s in %s: %s, in %s.", drop.Message, p.describe(drop.Place(), drop.NetNSName), reason, drop.Where))
	case t.RCode != "" || t.Query != nil && t.Query.Outcome == trace.OutcomeNoResponse:
		return clean(endedBy(t) + ".")
	case e == nil:
		return "Nothing was seen of its packets."
	}
	message := trace.MessageResponse
	s, ok := e.Last(message, math.MaxInt64)
	if !ok {
		message = trace.MessageQuery
		if s, ok = e.Last(message, math.MaxInt64); !ok {
			return "Nothing was seen of its packets."
		}
	}
	device := deviceOf(&s)
	if s.Direction == trace.DirectionRead {
		device.name, device.direction = "its process", ""
	}
	at := strings.TrimSpace(device.name + " " + device.direction)
	return clean(fmt.Sprintf("The %s was last seen %s after the query left: %s, %s.", message, took(s.Offset.Duration()), at, p.describe(s.Place(), s.NetNSName)))
}

// endedBy says which server answered, or chose not to, where in it and with which words.
func endedBy(t *trace.Trace) string {
	text := "The server"
	if q := t.Query; q != nil {
		text = "CoreDNS"
		if q.Unverified {
			text = "By a record that is not verified, CoreDNS"
		}
	} else if a := serverAddress(t); a != "" {
		text += " " + a
	}
	if t.RCode != "" {
		text += " answered " + t.RCode
	} else {
		text += " ended the query without a response"
	}
	if q := t.Query; q != nil {
		plugin := q.AnsweredBy
		if n := len(q.Hops); plugin == "" && n > 0 {
			plugin = q.Hops[n-1].Plugin
		}
		if plugin != "" {
			text += " in its plugin " + plugin
		}
		if q.Error != "" {
			text += ": " + q.Error
		}
	}
	if e := t.Exchange; e != nil && e.ExtendedError != nil {
		text += ", " + extendedError(e.ExtendedError)
	}
	return text
}
