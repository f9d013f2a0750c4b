package assemble

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// maxClockOffset is how far the clocks of two nodes may be apart for their
// records to be joined. Nodes that keep time are within milliseconds; a port and
// a DNS ID that come again within seconds are a client's retry.
const maxClockOffset = 5 * time.Second

// written returns where l holds an exchange as the same node wrote it, nil if it
// does not.
func (l *lookup) written(ex *trace.Exchange) **trace.Exchange {
	switch {
	case l.exchange != nil && l.exchange.Time.Equal(ex.Time):
		return &l.exchange
	case l.far != nil && l.far.Time.Equal(ex.Time):
		return &l.far
	}
	return nil
}

// moreThan tells whether a node's record of an exchange says more than another of
// its records of it, whichever came first: what a node writes again is longer, or
// has ended.
func moreThan(ex, old *trace.Exchange) bool {
	switch {
	case len(ex.Path) != len(old.Path):
		return len(ex.Path) > len(old.Path)
	case (ex.Duration == nil) != (old.Duration == nil):
		return ex.Duration != nil
	}
	return ex.Outcome != old.Outcome && old.Outcome == trace.OutcomeUnanswered
}

// seenAtClient tells whether an exchange was seen where the client is: its first
// packet left a device there, and did not come from beyond the node.
func seenAtClient(ex *trace.Exchange) bool {
	return len(ex.Path) > 0 && ex.Path[0].Direction == trace.DirectionTX
}

// twoSides tells whether two exchanges of one flow are one, seen by the client's
// node and by the server's.
func twoSides(x, y *trace.Exchange) bool {
	return len(x.Path) > 0 && len(y.Path) > 0 && seenAtClient(x) != seenAtClient(y) &&
		x.Time.Sub(y.Time).Abs() <= maxClockOffset
}

// setSides takes in what another node saw of l.
func (l *lookup) setSides(ex *trace.Exchange) {
	if seenAtClient(ex) {
		l.exchange, l.far = ex, l.exchange
		return
	}
	l.far = ex
}

// offset is how far one clock is ahead of another: between two bounds.
type offset struct{ from, to time.Duration }

func (o offset) best() time.Duration { return (o.from + o.to) / 2 }

// String says which clock is ahead, by how much, and how sure that is.
func (o offset) String() string {
	best, where := o.best(), "ahead of"
	if best < 0 {
		best, where = -best, "behind"
	}
	unsure := (o.to - o.from) / 2
	return fmt.Sprintf("%s (± %s) %s", round(best), round(unsure), where)
}

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond)
	case d < time.Second:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// between estimates how far the far clock is ahead, from four times as NTP does
// (RFC 5905, section 8): a query is at the far side after it left, and its
// response comes back after it left there. It fails where the far side cannot be
// within the near one.
func between(sent, back, farIn, farOut time.Time) (offset, bool) {
	o := offset{from: farOut.Sub(back), to: farIn.Sub(sent)}
	return o, o.from <= o.to && o.best().Abs() <= maxClockOffset
}

// passed returns when the client's side of an exchange let its first query go,
// and when the response came back to it; false without a response.
func passed(ex *trace.Exchange) (sent, back time.Time, ok bool) {
	for i := range ex.Path {
		s := &ex.Path[i]
		if s.Message == trace.MessageResponse {
			return sent, ex.Time.Add(s.Offset.Duration()), true
		}
		// Until it is sent again.
		if i == 0 || s.Src != ex.Path[0].Src || s.NetNS != ex.Path[0].NetNS || s.IfIndex != ex.Path[0].IfIndex {
			sent = ex.Time.Add(s.Offset.Duration())
		}
	}
	return sent, time.Time{}, false
}

// served returns when the first query came to the server's node and when its
// last response left it; false without a response.
func served(ex *trace.Exchange) (in, out time.Time, ok bool) {
	last := &ex.Path[len(ex.Path)-1]
	return ex.Time, ex.Time.Add(last.Offset.Duration()), last.Message == trace.MessageResponse
}

// merge makes one exchange of what two nodes saw, on the clock of the client's,
// and says how the clocks compare; ahead is nil where that cannot be told.
func merge(near, far *trace.Exchange) (merged *trace.Exchange, ahead *trace.Seconds, said string) {
	sent, back, answered := passed(near)
	in, out, served := served(far)
	o, known := between(sent, back, in, out)
	shift := o.best()
	switch {
	case answered && served && known:
		ahead = trace.SecondsPtr(shift)
		said = fmt.Sprintf("two nodes saw it: the clock of the server's node is %s that of the client's, judged by query and response; its times are corrected for that", o)
	default:
		shift = 0
		said = "two nodes saw it: how far their clocks are apart cannot be told; the times are as recorded"
	}
	m := near.Clone()
	move := far.Time.Sub(near.Time) - shift
	for _, s := range far.Path {
		s.Offset += trace.Seconds(move)
		m.Path = append(m.Path, s)
	}
	slices.SortStableFunc(m.Path, func(a, b trace.Sighting) int { return cmp.Compare(a.Offset, b.Offset) })
	if m.NAT == nil {
		m.NAT = far.NAT
	}
	// Each node knows best who is on it.
	m.Client = sameEnd(near.Client, far.Client)
	m.Server = sameEnd(far.Server, near.Server)
	m.Traceparent = cmp.Or(m.Traceparent, far.Traceparent)
	m.LostEvents += far.LostEvents
	m.SampledInKernel = m.SampledInKernel || far.SampledInKernel
	if m.Drop == nil && far.Drop != nil {
		d := *far.Drop
		d.Offset += trace.Seconds(move)
		m.Drop = &d
		if m.Outcome == trace.OutcomeUnanswered {
			m.Outcome = trace.OutcomeDropped
		}
	}
	return m, ahead, said
}

// sameEnd makes one of what two nodes know of one end of an exchange; better is
// from the node that it is on. What another says of another pod does not count.
func sameEnd(better, other *trace.Endpoint) *trace.Endpoint {
	if better == nil || other == nil {
		return cmp.Or(better, other)
	}
	e := *better
	e.Service = cmp.Or(e.Service, other.Service)
	if e.Pod != "" && other.Pod != "" && (e.Pod != other.Pod || e.Namespace != other.Namespace) {
		return &e
	}
	if e.Pod == "" {
		e.Pod, e.Namespace = other.Pod, other.Namespace
	}
	e.Node = cmp.Or(e.Node, other.Node)
	e.Workload = cmp.Or(e.Workload, other.Workload)
	e.Container = cmp.Or(e.Container, other.Container)
	if e.PID == 0 {
		e.Process, e.PID, e.TID, e.Thread = other.Process, other.PID, other.TID, other.Thread
	}
	e.Cgroup = cmp.Or(e.Cgroup, other.Cgroup)
	return &e
}

// recordClock says how the clock of a server beyond this node compares, where
// its record does not fit the exchange. Where the server was seen on this node,
// both have one clock.
func recordClock(ex *trace.Exchange, q *trace.Query) (ahead time.Duration, said string, apart bool) {
	sent, back, answered := passed(ex)
	if !answered || q.DNS.Duration == nil || seenAnswering(ex) {
		return 0, "", false
	}
	o, known := between(sent, back, q.Time, end(q.Time, q.DNS.Duration))
	if !known || o.from <= slack && o.to >= -slack {
		return 0, "", false
	}
	return o.best(), fmt.Sprintf("the clock of the server is %s that of the client's node, judged by query and response; its record keeps its own times, what is drawn is corrected for that", o), true
}

// seenAnswering tells whether a response was seen where the server is.
func seenAnswering(ex *trace.Exchange) bool {
	for i := range ex.Path {
		if s := &ex.Path[i]; s.Message == trace.MessageResponse {
			return s.Direction == trace.DirectionTX
		}
	}
	return false
}
