package diagnose

import (
	"math"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// A client that gets no response sends its query again. What was seen of the query from
// one sending to the next is of that transmission, and so is a response that comes before
// the next: one that is later may be to either, and proves nothing of the one before.

// transmission is one sending of a query.
type transmission struct {
	number int           // from 1
	sent   trace.Seconds // since the first packet
	until  trace.Seconds // when the next was sent; what happened then is not of this one
}

func (w transmission) has(at trace.Seconds) bool { return at >= w.sent && at < w.until }

// transmissions returns the sendings of a query up to a time, in order: each time that it
// was seen where it was seen first, and each that was dropped before it had a device.
func transmissions(ex *trace.Exchange, until trace.Seconds) []transmission {
	var sent []transmission
	add := func(at trace.Seconds) {
		if at <= until {
			sent = append(sent, transmission{sent: at, until: math.MaxInt64})
		}
	}
	left, seen := ex.Sighting(ex.Milestones.Query.Left)
	if !seen && ex.Path.Len() > 0 {
		left = ex.Path.At(0) // where it came into what is observed
	}
	for _, s := range ex.Path.All() {
		if alike(&s, &left) {
			add(s.Offset)
		}
	}
	for i := range ex.Drops {
		if d := &ex.Drops[i]; d.Message == trace.MessageQuery && d.IfName == "" && !d.InSocket() {
			add(d.Sent())
		}
	}
	slices.SortStableFunc(sent, func(a, b transmission) int { return int(max(-1, min(1, a.sent-b.sent))) })
	for i := range sent {
		sent[i].number = i + 1
		if i > 0 {
			sent[i-1].until = sent[i].sent
		}
	}
	return sent
}

// repeated returns the transmissions that got no response until the client sent its query
// again, before the response that ended its wait.
func repeated(ex *trace.Exchange, response trace.Seconds) []transmission {
	sent := transmissions(ex, response)
	switch {
	case len(sent) > 1:
		return sent[:len(sent)-1]
	case ex.Transmissions > 1: // they were counted where the path does not show them
		return []transmission{{until: response}}
	}
	return nil
}

// alike tells whether two sightings are of the same message, at the same device or
// socket, in the same direction.
func alike(a, b *trace.Sighting) bool {
	return a.Message == b.Message && a.Device == b.Device && a.Direction == b.Direction
}

// cameTo tells whether a transmission was seen at a milestone.
func (w transmission) cameTo(ex *trace.Exchange, m trace.Milestone) bool { return w.first(ex, m) >= 0 }

// first returns the index of the first sighting of a transmission that is like that of a
// milestone; negative if there is none.
func (w transmission) first(ex *trace.Exchange, m trace.Milestone) int {
	at, ok := ex.Sighting(m)
	if !ok {
		return -1
	}
	for i, s := range ex.Path.All() {
		if w.has(s.Offset) && alike(&s, &at) {
			return i
		}
	}
	return -1
}

// count returns how often a message was seen where a milestone is.
func count(ex *trace.Exchange, m trace.Milestone) (n int) {
	at, ok := ex.Sighting(m)
	for _, s := range ex.Path.All() {
		if ok && alike(&s, &at) {
			n++
		}
	}
	return n
}

// only returns an exchange as if a transmission had been all of it: unanswered, and where
// the others show that a milestone can be seen, it is not seen.
func (w transmission) only(ex *trace.Exchange) *trace.Exchange {
	c := ex.Clone()
	c.Outcome, c.RCode, c.Duration, c.Transmissions = trace.OutcomeUnanswered, "", nil, 1
	c.Path = trace.Path{}
	indices := map[int]int{}
	for i, s := range ex.Path.All() {
		if w.has(s.Offset) {
			indices[i] = c.Path.Len()
			c.Path.Append(s)
		}
	}
	reached := func(m trace.Milestone) trace.Milestone {
		if !m.Seen() {
			return m
		}
		if i, ok := indices[w.first(ex, m)]; ok {
			return trace.MilestoneAt(i)
		}
		return trace.NotSeen
	}
	for _, p := range []*trace.Progress{&c.Milestones.Query, &c.Milestones.Response} {
		p.Left, p.Arrived, p.Read = reached(p.Left), reached(p.Arrived), reached(p.Read)
	}
	c.Drops = slices.DeleteFunc(c.Drops, func(d trace.Drop) bool { return !w.has(d.Sent()) })
	c.Rejected = slices.DeleteFunc(c.Rejected, func(r trace.Rejection) bool { return !w.has(r.Offset) })
	if c.ICMP != nil && !w.has(c.ICMP.Offset) {
		c.ICMP = nil
	}
	return c
}
