package diagnose

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// transmissionFinding is a finding about a transmission of a query, counted from 1.
type transmissionFinding struct {
	finding      trace.Finding
	transmission int
	drop         *trace.Drop // that it is about; nil: none
}

// lost names what became of the queries, and of the transmissions of an answered one, that
// got no response: in the order in which they were sent.
func lost(m *memory, t *trace.Trace) []trace.Finding {
	type like struct {
		code string
		drop dropKind
	}
	var findings []trace.Finding
	var upstream grouped[like]
	for _, s := range subjects(t) {
		all := drops(m, t, s)
		if s.upstream {
			for _, x := range all {
				upstream.add(like{x.finding.Code, kindOf(x.drop)}, x.finding)
			}
			continue
		}
		all = append(all, lostTransmissions(t)...)
		slices.SortStableFunc(all, func(a, b transmissionFinding) int { return a.transmission - b.transmission })
		for _, x := range all {
			findings = append(findings, x.finding)
		}
	}
	return append(findings, upstream.reported("; %d queries upstream died so")...)
}

// lostTransmissions names what became of the transmissions of an answered query that got
// no response, and of which the kernel reported no drop. Each kind is reported once.
func lostTransmissions(t *trace.Trace) []transmissionFinding {
	ex := t.Exchange
	if ex.Outcome != trace.OutcomeAnswered || ex.Duration == nil || ex.Connects() || ex.Transmissions < 2 && len(ex.Drops) == 0 {
		return nil
	}
	var all []transmissionFinding
	for _, w := range repeated(ex, *ex.Duration) {
		if w.number == 0 || lastDropOf(ex, w) != nil {
			continue
		}
		f, ok := lostTransmission(t, w)
		if !ok || slices.ContainsFunc(all, func(x transmissionFinding) bool { return x.finding.Code == f.Code }) {
			continue
		}
		f.Evidence = append(f.Evidence, fmt.Sprintf("it was sent again %s later, and answered %s after the first packet", since(w.until-w.sent), since(*ex.Duration)))
		all = append(all, transmissionFinding{finding: f, transmission: w.number})
	}
	return all
}

// lostTransmission looks at one transmission as at a query that was never sent again.
func lostTransmission(t *trace.Trace, w transmission) (trace.Finding, bool) {
	alone := *t
	alone.Exchange = w.only(t.Exchange)
	s := subject{exchange: alone.Exchange, transmission: w.number}
	if toldTooBig(alone.Exchange) {
		return refusedSize(&alone, s), true
	}
	f, ok := icmpErrorAbout(&alone, s)
	if ok {
		return f, true
	}
	if f, ok = rejectedResponse(&alone); !ok {
		f, ok = vanished(&alone, t.Exchange, s)
	}
	f.Evidence = append(f.Evidence, lastSightings(&alone, alone.Exchange)...)
	return f, ok
}

// vanished finds the end of a transmission that another one went beyond, which shows that
// it would have been seen there. One that is late is missing only until it comes: as many
// that arrived as were sent are proof of none.
func vanished(alone *trace.Trace, all *trace.Exchange, s subject) (trace.Finding, bool) {
	query, response := alone.Exchange.Milestones.Query, alone.Exchange.Milestones.Response
	of := all.Milestones
	switch {
	case incomplete(all):
	case of.Query.Arrived.Seen() && query.Arrived == trace.NotSeen && !query.Read.Seen() && !delivered(alone.Exchange) && !answered(alone.Exchange) &&
		count(all, of.Query.Arrived) < len(transmissions(all, *all.Duration)):
		return trace.Finding{
			Code:    QueryNeverArrived,
			Summary: fmt.Sprintf("The client's %s query did not reach the server%s.", ordinal(s.transmission), lastPlace(alone, alone.Exchange, trace.MessageQuery)),
			Advice:  "Follow the way of the query from where it was last seen: a queue or link that loses packets, or what is not observed here.",
		}, true
	case of.Response.Arrived.Seen() && response.Arrived == trace.NotSeen && answered(alone.Exchange) &&
		count(all, of.Response.Arrived)+droppedResponses(all) < count(all, of.Response.Left):
		return trace.Finding{
			Code:    ResponseLost,
			Summary: fmt.Sprintf("The response to %s did not reach the client%s.", s.name(), lastPlace(alone, alone.Exchange, trace.MessageResponse)),
			Advice:  wayBackAdvice,
		}, true
	}
	return trace.Finding{}, false
}

// droppedResponses returns how many responses the kernel reported as dropped: those are not
// missing, whatever transmission they were to.
func droppedResponses(ex *trace.Exchange) (n int) {
	for i := range ex.Drops {
		if ex.Drops[i].Message == trace.MessageResponse {
			n++
		}
	}
	return n
}
