package render

import (
	"fmt"
	"strings"
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
	l := newLeg(t.Exchange, t.Exchange.Time.Sub(t.Time))
	if len(l.there) > 0 {
		label := "QUERY to " + s.serverName()
		if t.Exchange.Connects() {
			label = "TCP SYN to " + s.serverName()
		}
		s.add(row{section: true, label: label, mark: markSpan, from: l.there[0].from, to: l.arrival})
		s.steps(1, l.there)
	}
	s.server(0, t.Query, t.Upstreams, l.far())
	s.response(l)
}

// serverName is what the server goes by in the head.
func (s *story) serverName() string {
	if s.trace.Query != nil {
		return placeCoreDNS
	}
	return "the " + placeServer
}

// response tells the way back to the client, or that there was none.
func (s *story) response(l *leg) {
	e := s.trace.Exchange
	switch {
	case len(l.back) > 0:
		s.add(row{section: true, label: "RESPONSE to the client", mark: markSpan, from: l.back[0].from, to: l.end})
		s.steps(1, l.back)
	case e.Drop != nil && e.Drop.Message == trace.MessageQuery:
		lost := "the query was lost"
		if e.Connects() {
			lost = "without a connection nothing was asked"
		}
		s.add(row{section: true, label: "RESPONSE none: " + lost, tone: bad, note: true})
	case e.Outcome != trace.OutcomeAnswered:
		s.add(row{section: true, label: "RESPONSE none was seen on this node", tone: bad, note: true})
		s.complaint(1, e.ICMP)
		return
	}
	if e.Outcome == trace.OutcomeUnanswered {
		s.note(1, bad, "✗ it was not seen to reach the client")
	}
	s.pieces(1, e.Fragments)
	s.complaint(1, e.ICMP)
}

// server tells what happened between a query's arrival at a server and the
// response's departure.
func (s *story) server(depth int, q *trace.Query, upstreams []trace.Upstream, far stretch) {
	if q != nil {
		s.coredns(depth, q, upstreams, far)
		return
	}
	if far.known {
		r := row{section: true, depth: depth, label: "SERVER", mark: markWork, from: far.from, to: far.to}
		if len(upstreams) > 0 {
			r.mark = markSpan
		}
		s.add(r)
		s.note(depth+1, faint, "no record of its own: what it did inside is unknown")
	}
	s.upstreams(depth+1, upstreams, far)
}

func (s *story) upstreams(depth int, list []trace.Upstream, far stretch) {
	for i := range list {
		s.upstream(depth, i+1, &list[i], far)
	}
}

// upstream tells one attempt: what CoreDNS says of it, what its packets show,
// or both.
func (s *story) upstream(depth, number int, u *trace.Upstream, far stretch) {
	r := row{section: true, depth: depth, mark: markWork}
	outcome, address := "", ""
	if e := u.Exchange; e != nil {
		at := s.since(&e.Header)
		r.from, r.to = at, at
		for _, p := range e.Path {
			r.to = max(r.to, at+p.Offset.Duration())
		}
		r.open = e.Outcome != trace.OutcomeAnswered
		address = endpoint(e.ServerIP, e.ServerPort)
		outcome = e.Outcome
	}
	if a := u.Attempt; a != nil {
		r.from = far.base + a.Start.Duration()
		r.open = a.Duration == nil
		r.to = r.from
		if a.Duration != nil {
			r.to += a.Duration.Duration()
		}
		address, outcome, number = a.Address, a.Outcome, a.Attempt
	}
	if u.Attempt == nil && u.Exchange == nil {
		r.mark = markNone
	}
	switch outcome {
	case trace.OutcomeOK, trace.OutcomeAnswered:
		outcome = trace.OutcomeOK
	case "":
	default:
		r.tone = bad
		outcome = strings.ToUpper(outcome)
	}
	if u.Exchange != nil {
		r.mark = markSpan
	} else if outcome == strings.ToUpper(trace.OutcomeTimeout) {
		r.mark = markSilence
	}
	// What would be cut off here is said in full beneath.
	r.label = strings.TrimSpace(fmt.Sprintf("UPSTREAM %d %s", number, outcome))
	if room := s.labels - indentOf(depth) - columns(r.label) - 1; columns(address) <= room {
		r.label = strings.TrimSpace(fmt.Sprintf("UPSTREAM %d %s %s", number, address, outcome))
		address = ""
	}
	s.add(r)
	s.upstreamNotes(depth+1, u, address)
	if e := u.Exchange; e != nil {
		s.upstreamPackets(depth+1, u, newLeg(e, s.since(&e.Header)), r)
	}
}

func (s *story) upstreamNotes(depth int, u *trace.Upstream, address string) {
	if address != "" {
		s.note(depth, plain, "%s", address)
	}
	e := u.Exchange
	switch {
	case e == nil:
		s.note(depth, faint, "its packets: none could be matched")
	case u.Join == trace.JoinInferred:
		s.note(depth, faint, "%s, DNS ID %#04x; inferred from address, name, time", e.Protocol, e.ID)
	case u.Attempt == nil:
		s.note(depth, faint, "%s, DNS ID %#04x; no attempt on record", e.Protocol, e.ID)
	default:
		s.note(depth, faint, "%s, DNS ID %#04x, source port %d", e.Protocol, e.ID, e.ClientPort)
	}
	if a := u.Attempt; a != nil && a.Error != "" {
		s.note(depth, bad, "error: %s", a.Error)
	}
}

// upstreamPackets tells the way to an upstream and back; attempt is the row
// above, which knows how long CoreDNS waited.
func (s *story) upstreamPackets(depth int, u *trace.Upstream, l *leg, attempt row) {
	s.steps(depth, l.there)
	far := l.far()
	switch {
	case u.Query != nil:
		s.server(depth, u.Query, u.Upstreams, far)
	case far.known:
		label := "beyond this node"
		if s.places.named(placeUpstream) {
			label = "in the upstream"
		}
		s.add(row{depth: depth, label: label, mark: markWork, tone: work, from: far.from, to: far.to})
	case l.exchange.Drop == nil && l.exchange.Outcome != trace.OutcomeAnswered:
		s.add(row{depth: depth, label: "no answer came", tone: bad, mark: markSilence, from: l.arrival, to: max(l.arrival, attempt.to), open: attempt.open})
	}
	s.steps(depth, l.back)
	s.pieces(depth, l.exchange.Fragments)
	s.complaint(depth, l.exchange.ICMP)
}
