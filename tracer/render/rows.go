package render

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Marks on the time axis.
type mark int

const (
	markNone     mark = iota
	markQuery         // ▸ a query travels
	markResponse      // ◂ a response travels
	markWork          // █ somebody works
	markSpan          // ├─┤ the time of the rows below
	markSilence       // ░ waiting for what never came
	markDrop          // ✗
)

// row is one line of a waterfall.
type row struct {
	section bool
	depth   int
	label   string
	tone    tone
	note    bool // a label that may use the whole width, without time
	mark    mark
	from    time.Duration // since the start of the trace
	to      time.Duration
	open    bool // the end was not seen
}

// story collects the rows of a trace, in order of time.
type story struct {
	trace  *trace.Trace
	places *places
	labels int // columns of a label
	rows   []row
}

// indentOf returns how far a row is set in.
func indentOf(depth int) int { return 1 + depth }

// add is where all text of a record enters the drawing, and is made safe.
func (s *story) add(r row) {
	r.label = clean(r.label)
	s.rows = append(s.rows, r)
}

func (s *story) note(depth int, t tone, format string, args ...any) {
	s.add(row{depth: depth, note: true, tone: t, label: fmt.Sprintf(format, args...)})
}

// since returns where a record of the server begins in the trace, whose times are
// those of the client's node.
func (s *story) since(h *trace.Header) time.Duration {
	return s.trace.OnClientClock(h.Time).Sub(s.trace.Time)
}

// tell makes all rows: the way there, the server with its upstreams, the way
// back.
func (s *story) tell() {
	t := s.trace
	if t.Exchange == nil {
		s.server(0, t.Query, t.Upstreams, stretch{})
		return
	}
	j := newJourney(t.Exchange, t.Exchange.Time.Sub(t.Time))
	if len(j.there) > 0 {
		label := "QUERY to " + s.serverName()
		if t.Exchange.Connects() {
			label = "TCP SYN to " + s.serverName()
		}
		s.add(row{section: true, label: label, mark: markSpan, from: j.there[0].from, to: j.arrival})
		s.steps(1, t.Exchange, j.there)
	}
	s.server(0, t.Query, t.Upstreams, j.atServer())
	s.response(j)
}

// serverName is what the server goes by in the head.
func (s *story) serverName() string {
	if s.trace.Query != nil {
		return placeCoreDNS
	}
	return "the " + placeServer
}

// response tells the way back to the client, or that there was none.
func (s *story) response(j *journey) {
	e := s.trace.Exchange
	switch {
	case j.answered():
		s.add(row{section: true, label: "RESPONSE to the client", mark: markSpan, from: j.back[0].from, to: j.end})
	case len(e.Rejected) > 0:
		s.add(row{section: true, label: "RESPONSE none that the client could take", tone: bad, note: true})
	case e.LastDrop() != nil && e.LastDrop().Message == trace.MessageQuery:
		lost := "the query was lost"
		if e.Connects() {
			lost = "without a connection nothing was asked"
		}
		s.add(row{section: true, label: "RESPONSE none: " + lost, tone: bad, note: true})
	case len(j.back) > 0 && j.back[len(j.back)-1].icmpError():
		s.add(row{section: true, label: "RESPONSE none: an ICMP error came instead", tone: bad, note: true})
	case len(j.back) > 0: // a reset, or a drop of what was not seen before
		s.add(row{section: true, label: "RESPONSE none reached the client", tone: bad, note: true})
	case e.Outcome != trace.OutcomeAnswered:
		s.add(row{section: true, label: "RESPONSE none was seen on this node", tone: bad, note: true})
	}
	s.steps(1, e, j.back)
	switch {
	case e.Outcome != trace.OutcomeUnanswered || !j.answered():
	case e.Milestones.Response.Arrived == trace.NotObservable:
		s.note(1, warning, "whether it reached the client cannot be seen here")
	default:
		s.note(1, bad, "✗ it was not seen to reach the client")
	}
	s.pieces(1, e.Fragments)
}

// server tells what happened between a query's arrival at a server and the
// response's departure.
func (s *story) server(depth int, q *trace.Query, upstreams []trace.Upstream, at stretch) {
	if q != nil {
		s.coredns(depth, q, upstreams, at)
		return
	}
	if at.known {
		r := row{section: true, depth: depth, label: "SERVER", mark: markWork, from: at.from, to: at.to}
		if len(upstreams) > 0 {
			r.mark = markSpan
		}
		s.add(r)
		s.note(depth+1, faint, "no record of its own: what it did inside is unknown")
	}
	s.upstreams(depth+1, upstreams, at)
}
