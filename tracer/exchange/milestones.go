package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// view is how far the messages of an exchange came, as far as packets show.
type view struct {
	trace.Milestones
	outcome string
	end     int64 // when it was answered, ns since its first packet
}

// view computes the milestones and what follows from them.
func (t *Table) view(ex *open) view {
	var v view
	ex.wholeDatagrams()
	q, r := &v.Query, &v.Response
	q.Left, r.Left = ex.left(), ex.responseLeft()
	q.Arrived = t.queryArrived(ex, r.Left)
	q.Read = t.read(ex, 0, q.Arrived)
	if q.Arrived == trace.NotObservable && r.Left == trace.NotSeen {
		r.Left = trace.NotObservable
	}
	if r.Left != trace.NotSeen {
		r.Arrived = t.responseArrived(ex, q.Left)
	}
	r.Read = t.read(ex, inResponse, r.Arrived)
	v.outcome, v.end = t.outcome(ex, &v.Milestones)
	return v
}

// answered tells whether the exchange has its response, as far as is known now.
func (t *Table) answered(ex *open) bool {
	_, ok := t.answeredAt(ex)
	return ok
}

// answeredAt returns the sighting that shows that the exchange has its response, as far as
// is known now; false if none does.
func (t *Table) answeredAt(ex *open) (int, bool) {
	if !ex.responded {
		return 0, false
	}
	ex.wholeDatagrams()
	var m trace.Milestones
	m.Query.Left = ex.left()
	m.Response.Arrived = t.responseArrived(ex, m.Query.Left)
	return t.arrival(ex, &m)
}

// left returns where the query was sent: its first sighting, if it goes out there, or where
// a socket retransmits it if the first sightings were lost. A query that came from outside
// was sent where nothing is observed.
func (ex *open) left() trace.Milestone {
	first := true
	for i := range ex.marks {
		m := &ex.marks[i]
		if m.is(inResponse) {
			continue
		}
		if m.kind == capture.TX && (first || m.is(bySocket)) {
			return trace.MilestoneAt(i)
		}
		first = false
	}
	if first {
		return trace.NotSeen
	}
	return trace.NotObservable
}

// responseLeft returns where the response was sent: its first sighting, if it goes out
// there. One that came from outside was sent where nothing is observed, as was one that is
// first seen to leave a namespace which only forwarded the query.
func (ex *open) responseLeft() trace.Milestone {
	i := ex.firstOf(inResponse)
	if i < 0 {
		return trace.NotSeen
	}
	if m := &ex.marks[i]; m.kind != capture.TX || !m.is(bySocket) && ex.forwardedBy(m.netns) {
		return trace.NotObservable
	}
	return trace.MilestoneAt(i)
}

// forwardedBy tells whether a namespace is seen to forward the query.
func (ex *open) forwardedBy(netns uint32) bool {
	for i := range ex.marks {
		if m := &ex.marks[i]; m.netns == netns && m.kind == capture.RX && !m.is(inResponse) && ex.goesOn(i) {
			return true
		}
	}
	return false
}

// queryArrived returns where the query reached the namespace of its server: its
// socket, else the namespace from which the response left, else that of a socket that
// had no room for it, else where its way ended.
func (t *Table) queryArrived(ex *open, responseLeft trace.Milestone) trace.Milestone {
	if m := ex.queryAt(func(m *mark) bool { return m.kind == capture.Delivered && !ex.lost(m) }); m.Seen() {
		return m
	}
	if i := responseLeft.Index(); i >= 0 {
		server := ex.marks[i].netns
		if m := ex.queryAt(func(m *mark) bool { return m.kind == capture.RX && m.netns == server && !ex.lost(m) }); m.Seen() {
			return m
		}
	}
	if m := ex.queryAt(func(m *mark) bool { return m.kind == capture.Read }); m.Seen() {
		return m
	}
	for i := len(ex.marks) - 1; i >= 0; i-- {
		if m := &ex.marks[i]; !m.is(inResponse|notForIt) && m.kind != capture.TX && ex.journeys[m.journey].atSocket {
			return trace.MilestoneAt(i)
		}
	}
	if responseLeft != trace.NotSeen {
		return trace.NotObservable // it was there, and was not seen to come
	}
	return t.queryEnded(ex)
}

// queryAt returns the first sighting of the whole query that is like it.
func (ex *open) queryAt(like func(*mark) bool) trace.Milestone {
	for i := range ex.marks {
		if m := &ex.marks[i]; !m.is(inResponse|notForIt) && m.is(isWhole) && like(m) {
			return trace.MilestoneAt(i)
		}
	}
	return trace.NotSeen
}

// queryEnded returns where the query arrived if only its path shows it: the last reception
// in a namespace that did not forward it.
func (t *Table) queryEnded(ex *open) trace.Milestone {
	last := -1
	for i := range ex.marks {
		if m := &ex.marks[i]; !m.is(inResponse|notForIt) && !ex.lost(m) {
			last = i
		}
	}
	if last < 0 {
		return trace.NotSeen // or it was dropped
	}
	for i := last; i >= 0; i-- {
		m := &ex.marks[i]
		if m.kind != capture.RX || m.is(inResponse|notForIt) || ex.lost(m) || ex.goesOn(i) {
			continue
		}
		_, dst := ex.path.Addresses(i)
		switch {
		case t.places.answersAt(m.netns, dst), !t.deliveries(ex) && !t.places.does(m.netns, redirects|forwards):
			if m.is(isWhole) {
				return trace.MilestoneAt(i)
			}
		case !t.deliveries(ex) && t.places.does(m.netns, redirects):
			return trace.NotObservable
		}
	}
	if ex.marks[last].kind != capture.TX {
		return trace.NotSeen // it went no further
	}
	if ex.dropDecides(false) || ex.wentAstray() {
		return trace.NotSeen
	}
	return trace.NotObservable // it went beyond what is observed
}

// goesOn tells whether the query that came into a namespace is seen to leave it again.
func (ex *open) goesOn(i int) bool {
	in := &ex.marks[i]
	for j := i + 1; j < len(ex.marks); j++ {
		if m := &ex.marks[j]; !m.is(inResponse) && m.kind == capture.TX && (m.netns == in.netns && !m.is(bySocket) || m.journey == in.journey) {
			return true
		}
	}
	return false
}

// responseArrived returns where the whole response reached the client's namespace,
// and was not dropped there.
func (t *Table) responseArrived(ex *open, left trace.Milestone) trace.Milestone {
	if !left.Seen() {
		if left == trace.NotObservable {
			return trace.NotObservable
		}
		return trace.NotSeen
	}
	client := ex.marks[left.Index()].netns
	best := trace.NotSeen
	for i := range ex.marks {
		m := &ex.marks[i]
		if !m.is(inResponse) || m.netns != client || m.kind == capture.TX || !m.is(isWhole) || ex.lost(m) || ex.journeys[m.journey].why > stray {
			continue
		}
		// The socket shows it better than a device; the first counts, but for the last
		// message of a zone transfer.
		if !best.Seen() || ex.transfers() || m.kind == capture.Delivered && ex.marks[best.Index()].kind == capture.RX && ex.marks[best.Index()].journey == m.journey {
			best = trace.MilestoneAt(i)
		}
	}
	if best.Seen() || t.deliveries(ex) || t.places.does(client, receives) {
		return best
	}
	return trace.NotObservable
}

// read returns where a process took a message out of its socket.
func (t *Table) read(ex *open, message uint8, arrived trace.Milestone) trace.Milestone {
	for i := range ex.marks {
		if m := &ex.marks[i]; m.kind == capture.Read && m.bits&inResponse == message {
			return trace.MilestoneAt(i)
		}
	}
	unsure := ex.queryUnsure
	if message == inResponse {
		unsure = ex.responseUnsure
	}
	if !t.reads(ex) || arrived == trace.NotObservable || unsure {
		return trace.NotObservable
	}
	return trace.NotSeen
}

// deliveries tells whether the kernel shows what reaches a socket. It does not for segments
// that only open a connection.
func (t *Table) deliveries(ex *open) bool {
	if ex.key.protocol == trace.TransportTCP {
		return t.cfg.Observes.DeliveredTCP && !ex.connects
	}
	return t.cfg.Observes.DeliveredUDP
}

// reads tells whether the kernel shows what a process takes out of its socket.
func (t *Table) reads(ex *open) bool {
	if ex.key.protocol == trace.TransportTCP {
		return t.cfg.Observes.ReadTCP && !ex.connects
	}
	return t.cfg.Observes.ReadUDP
}

// unread tells whether the response is in the socket of its client, which may still read it,
// and there is room to wait for that.
func (t *Table) unread(ex *open) bool {
	if ex.conn != nil && ex.conn.left {
		return false
	}
	return t.reads(ex) && t.bytes < t.cfg.MaxBytes/4 && ex.left().Seen() && t.read(ex, inResponse, trace.NotSeen) == trace.NotSeen
}

// lost tells whether the packet of a sighting was dropped later.
func (ex *open) lost(m *mark) bool { return ex.journeys[m.journey].dropped }

// outcome returns what became of the exchange, and when it was answered.
func (t *Table) outcome(ex *open, m *trace.Milestones) (string, int64) {
	if i, ok := t.arrival(ex, m); ok {
		return trace.OutcomeAnswered, int64(ex.path.Offset(i))
	}
	if ex.connected {
		return trace.OutcomeAnswered, ex.last - ex.first
	}
	if ex.dropDecides(m.Query.Arrived.Seen()) || ex.wentAstray() {
		return trace.OutcomeDropped, 0
	}
	return trace.OutcomeUnanswered, 0
}

// arrival returns the sighting that shows that the exchange was answered: where the
// response arrived. Where that is not observable, it is the last one of the response on
// its way there.
func (t *Table) arrival(ex *open, m *trace.Milestones) (int, bool) {
	if m.Response.Arrived.Seen() {
		return m.Response.Arrived.Index(), true
	}
	if m.Response.Arrived != trace.NotObservable {
		return 0, false
	}
	beyond := !m.Query.Left.Seen()
	gate := uint32(0)
	if len(ex.marks) > 0 {
		gate = ex.marks[0].netns
	}
	found, anywhere := -1, -1
	for i := range ex.marks {
		k := &ex.marks[i]
		if !k.is(inResponse) || ex.lost(k) || !k.is(isWhole) || ex.journeys[k.journey].why > stray {
			continue
		}
		anywhere = i
		if k.kind == capture.TX && k.netns == gate && (found < 0 || ex.marks[found].journey == k.journey) {
			found = i
		}
	}
	if !beyond || found < 0 && !t.places.does(gate, transmits) {
		found = anywhere
	}
	return found, found >= 0
}
