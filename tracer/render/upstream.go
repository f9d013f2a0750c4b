package render

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

func (s *story) upstreams(depth int, list []trace.Upstream, at stretch) {
	for i := range list {
		s.upstream(depth, i+1, &list[i], at)
	}
}

// upstream tells one attempt: what CoreDNS says of it, what its packets show,
// or both.
func (s *story) upstream(depth, number int, u *trace.Upstream, at stretch) {
	r, address := s.attempt(depth, u, at)
	outcome := u.Outcome()
	if u.Attempt != nil {
		number = u.Attempt.Attempt
	}
	switch outcome {
	case trace.OutcomeOK, trace.OutcomeAnswered:
		outcome = trace.OutcomeOK
		if e := u.Exchange; e != nil && e.RCode != "" && e.RCode != "NOERROR" && e.RCode != "NXDOMAIN" {
			r.tone = bad // it answered, and that it failed
			outcome = e.RCode
		}
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
	all := u.Exchanges()
	for i, e := range all {
		if len(all) > 1 {
			s.note(depth+1, faint, "query %d of this attempt: %s, source port %d, %s", i+1, sentAs(e), e.ClientPort, e.Outcome)
		}
		of, above := u, r
		if e != u.Exchange {
			of, above = &trace.Upstream{Exchange: e}, row{}
		}
		s.upstreamPackets(depth+1, of, newJourney(e, s.since(&e.Header)), above)
	}
	if len(all) == 0 && u.Query != nil {
		from := s.since(&u.Query.Header)
		s.server(depth+1, u.Query, u.Upstreams, stretch{from: from, to: from, base: from})
	}
}

// attempt returns the row of an attempt: when, and where to.
func (s *story) attempt(depth int, u *trace.Upstream, at stretch) (r row, address string) {
	r = row{section: true, depth: depth, mark: markWork}
	if e := u.Exchange; e != nil {
		r.from = s.since(&e.Header)
		r.to = r.from
		if n := e.Path.Len(); n > 0 {
			r.to = max(r.to, r.from+e.Path.At(n-1).Offset.Duration())
		}
		r.from = min(r.from, s.since(&u.Exchanges()[0].Header))
		r.open = e.Outcome != trace.OutcomeAnswered
		address = endpoint(e.ServerIP, e.ServerPort)
	}
	if a := u.Attempt; a != nil {
		r.from = at.base + a.Start.Duration()
		r.open = a.Duration == nil
		r.to = r.from
		if a.Duration != nil {
			r.to += a.Duration.Duration()
		}
		address = a.Address
	}
	if u.Attempt == nil && u.Exchange == nil {
		r.mark = markNone
	}
	return r, address
}

func (s *story) upstreamNotes(depth int, u *trace.Upstream, address string) {
	if address != "" {
		s.note(depth, plain, "%s", address)
	}
	s.askedFor(depth, u)
	e := u.Exchange
	switch {
	case e == nil && u.Query != nil:
		s.note(depth, faint, "its packets were not observed; the server's record is of the same process")
	case e == nil:
		s.note(depth, faint, "its packets: none could be matched")
	case u.Join == trace.JoinInferred:
		s.note(depth, faint, "%s; inferred from address, name, time", sentAs(e))
	case u.Attempt == nil:
		s.note(depth, faint, "%s; no attempt on record", sentAs(e))
	case len(u.Earlier) > 0:
	default:
		s.note(depth, faint, "%s, source port %d", sentAs(e), e.ClientPort)
	}
	if a := u.Attempt; a != nil && a.Error != "" {
		s.note(depth, bad, "error: %s", a.Error)
	}
}

// sentAs says what was sent upstream: where no connection could be opened, no query.
func sentAs(e *trace.Exchange) string {
	if e.Connects() {
		return e.Protocol + ", no connection"
	}
	return fmt.Sprintf("%s, DNS ID %#04x", e.Protocol, e.ID)
}

// askedFor says what the upstream was asked where that is not what the client asked.
func (s *story) askedFor(depth int, u *trace.Upstream) {
	a := u.Attempt
	if a == nil || a.QName == "" && a.QType == "" {
		return
	}
	name, kind := a.QName, a.QType
	if name == "" {
		name = s.trace.QName
	}
	if kind == "" {
		kind = s.trace.QType
	}
	s.note(depth, warning, "asked for %s IN %s", name, kind)
}

// upstreamPackets tells the way to an upstream and back; attempt is the row
// above, which knows how long CoreDNS waited.
func (s *story) upstreamPackets(depth int, u *trace.Upstream, j *journey, attempt row) {
	e := j.exchange
	s.steps(depth, e, j.there)
	at := j.atServer()
	switch {
	case u.Query != nil:
		s.server(depth, u.Query, u.Upstreams, at)
	case at.known:
		label := "beyond this node"
		if s.places.named(placeUpstream) {
			label = "in the upstream"
		}
		s.add(row{depth: depth, label: label, mark: markWork, tone: work, from: at.from, to: at.to})
	}
	s.steps(depth, e, j.back)
	s.inVain(depth, j, attempt)
	s.pieces(depth, e.Fragments)
}

// inVain tells how long an attempt went on waiting after the last that was seen of its
// packets.
func (s *story) inVain(depth int, j *journey, attempt row) {
	e := j.exchange
	if e.Outcome == trace.OutcomeAnswered {
		return
	}
	last := j.arrival
	if n := len(j.back); n > 0 {
		last = max(last, j.back[n-1].to)
	}
	label := "no answer came"
	if len(e.Rejected) > 0 {
		label = "no other answer came"
	}
	if attempt.to > last || len(events(e)) == 0 && !j.answered() {
		s.add(row{depth: depth, label: label, tone: bad, mark: markSilence, from: last, to: max(last, attempt.to), open: attempt.open})
	}
}
