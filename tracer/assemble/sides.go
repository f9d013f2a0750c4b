package assemble

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// maxClockOffset is how far the clocks of two nodes may be apart for their
// records to be joined. Nodes that keep time are within milliseconds; a port and
// a DNS ID that come again within seconds are a client's retry.
const maxClockOffset = 5 * time.Second

// written returns where l holds the same node's record of an exchange; nil if it has none.
func (l *lookup) written(ex *trace.Exchange) **trace.Exchange {
	switch {
	case l.exchange != nil && sameRecord(l.exchange, ex):
		return &l.exchange
	case l.serverExchange != nil && sameRecord(l.serverExchange, ex):
		return &l.serverExchange
	}
	return nil
}

// sameRecord tells whether two records of one flow are of one exchange, as one node saw
// it.
func sameRecord(x, y *trace.Exchange) bool {
	return x.Time.Equal(y.Time) && x.ServerIP == y.ServerIP && x.ServerPort == y.ServerPort && x.Node == y.Node
}

// moreThan tells whether a node's record of an exchange says more than another of
// its records of it, whichever came first: what a node writes again is longer, or
// has ended.
func moreThan(ex, old *trace.Exchange) bool {
	switch {
	case ex.Path.Len()+ex.PathOmitted != old.Path.Len()+old.PathOmitted:
		return ex.Path.Len()+ex.PathOmitted > old.Path.Len()+old.PathOmitted
	case (ex.Duration == nil) != (old.Duration == nil):
		return ex.Duration != nil
	case len(ex.Drops)+len(ex.Rejected) != len(old.Drops)+len(old.Rejected):
		return len(ex.Drops)+len(ex.Rejected) > len(old.Drops)+len(old.Rejected)
	}
	return ex.Replaces && !old.Replaces
}

// twoSides tells whether two exchanges of one flow are one, seen by the client's
// node and by the server's.
func twoSides(x, y *trace.Exchange) bool {
	return x.Path.Len() > 0 && y.Path.Len() > 0 && x.AtClient() != y.AtClient() &&
		x.Time.Sub(y.Time).Abs() <= maxClockOffset
}

// sameServer tells whether what two nodes saw of one flow went to one server: they know
// one address of it. The one may have been translated to the other where nobody saw it.
func sameServer(x, y *trace.Exchange) fit {
	known := serverAddrs(y)
	for _, addr := range serverAddrs(x) {
		if slices.Contains(known[:], addr) {
			return fits
		}
	}
	if client := clientSide(x, y); client.NAT == nil {
		return mayFit
	}
	return noFit
}

// clientSide returns which of what two nodes saw was seen at the client.
func clientSide(x, y *trace.Exchange) *trace.Exchange {
	if x.AtClient() {
		return x
	}
	return y
}

// setSides adds what another node saw of l.
func (l *lookup) setSides(ex *trace.Exchange) {
	if ex.AtClient() {
		l.exchange, l.serverExchange = ex, l.exchange
		return
	}
	l.serverExchange = ex
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

// between estimates how far the server's clock is ahead, from four times as NTP does
// (RFC 5905, section 8): a query reaches the server after it left the client, and the
// response comes back after it left the server. It fails where the time at the server cannot
// be within that at the client.
func between(sent, back, in, out time.Time) (offset, bool) {
	o := offset{from: out.Sub(back), to: in.Sub(sent)}
	return o, o.from <= o.to && o.best().Abs() <= maxClockOffset
}

// passed returns when the client's side of an exchange let its first query go,
// and when the response came back to it; false without a response.
func passed(ex *trace.Exchange) (sent, back time.Time, ok bool) {
	m := &ex.Milestones
	back, ok = ex.At(m.Response.Arrived)
	sent, left := ex.At(m.Query.Left)
	if ex.Transmissions <= 1 {
		// Closer to when it left the node.
		if s, seen := ex.Last(trace.MessageQuery, trace.Seconds(back.Sub(ex.Time))); ok && seen {
			sent = ex.Time.Add(s.Offset.Duration())
		}
	}
	return sent, back, ok && left
}

// served returns when the first query came to the server's node and when its
// last response left it; false without a response.
func served(ex *trace.Exchange) (in, out time.Time, ok bool) {
	if !ex.Milestones.Response.Left.Seen() {
		return ex.Time, ex.Time, false
	}
	last, ok := ex.Last(trace.MessageResponse, math.MaxInt64)
	return ex.Time, ex.Time.Add(last.Offset.Duration()), ok
}

// merge makes one exchange of what two nodes saw, on the clock of the client's,
// and says how the clocks compare; ahead is nil where that is unknown.
func merge(client, server *trace.Exchange) (merged *trace.Exchange, ahead *trace.Seconds, said string) {
	sent, back, answered := passed(client)
	in, out, served := served(server)
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
	m := client.Clone()
	mergePaths(m, client, server, server.Time.Sub(client.Time)-shift)
	if m.NAT == nil {
		m.NAT = server.NAT
	}
	// Each node knows best who is on it.
	m.Client = sameEnd(client.Client, server.Client)
	m.Server = sameEnd(server.Server, client.Server)
	m.Traceparent = cmp.Or(m.Traceparent, server.Traceparent)
	m.LostEvents += server.LostEvents
	m.PathOmitted += server.PathOmitted
	m.SampledInKernel = m.SampledInKernel || server.SampledInKernel
	if len(m.Drops) > 0 && m.Outcome == trace.OutcomeUnanswered {
		m.Outcome = trace.OutcomeDropped
	}
	return m, ahead, said
}

// mergePaths gives m the sightings and what was seen of them by both nodes, in order of
// time; those of the server's come move after the client's first.
func mergePaths(m, client, server *trace.Exchange, move time.Duration) {
	type seen struct {
		trace.Sighting
		side, index int
	}
	all := make([]seen, 0, client.Path.Len()+server.Path.Len())
	for side, ex := range [...]*trace.Exchange{client, server} {
		for i, s := range ex.Path.All() {
			s.Node = cmp.Or(s.Node, ex.Node)
			if side == 1 {
				s.Offset += trace.Seconds(move)
			}
			all = append(all, seen{s, side, i})
		}
	}
	slices.SortStableFunc(all, func(a, b seen) int { return cmp.Compare(a.Offset, b.Offset) })
	m.Path.Reset()
	now := [2][]int{make([]int, client.Path.Len()), make([]int, server.Path.Len())} // index in the new path
	for _, s := range all {
		now[s.side][s.index] = m.Path.Len()
		if !m.Path.Append(s.Sighting) {
			now[s.side][s.index] = -1
			m.PathOmitted++
		}
	}
	mergeMilestones(m, client, server, func(side int, at trace.Milestone) trace.Milestone {
		if !at.Seen() {
			return at
		}
		return trace.MilestoneAt(now[side][at.Index()])
	})
	mergeEvents(m, client, server, trace.Seconds(move))
}

// mergeMilestones gives m what each node knows best: how the query left and the
// response arrived at the client's, the rest at the server's.
func mergeMilestones(m, client, server *trace.Exchange, in func(side int, at trace.Milestone) trace.Milestone) {
	c, s := &client.Milestones, &server.Milestones
	m.Milestones = trace.Milestones{
		Query:    trace.Progress{Left: in(0, c.Query.Left), Arrived: in(1, s.Query.Arrived), Read: in(1, s.Query.Read)},
		Response: trace.Progress{Left: in(1, s.Response.Left), Arrived: in(0, c.Response.Arrived), Read: in(0, c.Response.Read)},
	}
}

// mergeEvents gives m what both nodes saw happen to the packets, each with its node.
func mergeEvents(m, client, server *trace.Exchange, move trace.Seconds) {
	for i := range m.Drops {
		m.Drops[i].Node = cmp.Or(m.Drops[i].Node, client.Node)
	}
	for _, d := range server.Drops {
		d.Node = cmp.Or(d.Node, server.Node)
		d.Offset += move
		m.Drops = append(m.Drops, d)
	}
	slices.SortStableFunc(m.Drops, func(a, b trace.Drop) int { return cmp.Compare(a.Offset, b.Offset) })
	for _, r := range server.Rejected {
		r.Offset += move
		m.Rejected = append(m.Rejected, r)
	}
	slices.SortStableFunc(m.Rejected, func(a, b trace.Rejection) int { return cmp.Compare(a.Offset, b.Offset) })
	if i := server.ICMP; i != nil && (m.ICMP == nil || sentThere(i) && !sentThere(m.ICMP)) {
		icmp := *i
		icmp.Offset += move
		m.ICMP = &icmp
	}
	m.ListenFull = m.ListenFull || server.ListenFull
	m.ResentSegments = max(m.ResentSegments, server.ResentSegments)
	if m.Reset == nil && server.Reset != nil {
		reset := *server.Reset
		reset.Offset += move
		m.Reset = &reset
	}
}

// sentThere tells whether an ICMP error was seen where it was sent, which tells more of it
// than where it came.
func sentThere(i *trace.ICMP) bool { return i.Direction == trace.DirectionTX }

// sameEnd makes one of what two nodes know of one end of an exchange; better is
// from the node that it is on. What another says of another pod does not count.
func sameEnd(better, other *trace.Endpoint) *trace.Endpoint {
	if better == nil || other == nil {
		return cmp.Or(better, other)
	}
	e := *better
	if e.Service == "" {
		e.Service, e.ServiceInferred, e.ServiceState = other.Service, other.ServiceInferred, other.ServiceState
	}
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
	if !answered || q.DNS.Duration == nil || ex.Milestones.Response.Left.Seen() {
		return 0, "", false
	}
	o, known := between(sent, back, q.Time, end(q.Time, q.DNS.Duration))
	if !known || o.from <= time.Duration(slack) && o.to >= -time.Duration(slack) {
		return 0, "", false
	}
	return o.best(), fmt.Sprintf("the clock of the server is %s that of the client's node, judged by query and response; its record keeps its own times, what is drawn is corrected for that", o), true
}
