package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// placeColumns is the width of the column of places.
const placeColumns = 8

// stretch is the time that a query spent at a server, as the packets show it.
type stretch struct {
	known    bool
	from, to time.Duration
	base     time.Duration // where the offsets of the server's record begin
}

// step is one row of a packet's way: sightings that follow each other in one
// namespace with the same addresses, or the end of the way.
type step struct {
	message  string
	netns    uint32
	devices  []device
	src, dst netip.AddrPort
	from, to time.Duration
	again    int    // this is the nth transmission, from 2
	wrap     string // what carried the packet here
	drop     *trace.Drop
}

// leg is the way of an exchange's packets there and back.
type leg struct {
	exchange *trace.Exchange
	there    []step
	back     []step
	arrival  time.Duration // the last sighting on the way there
	end      time.Duration // the last on the way back
}

// newLeg groups the sightings of an exchange that begins at base.
func newLeg(e *trace.Exchange, base time.Duration) *leg {
	l := &leg{exchange: e, arrival: base}
	steps := group(e, base)
	first := len(steps)
	for i, st := range steps {
		if st.message == trace.MessageResponse {
			first = i
			break
		}
	}
	l.there, l.back = steps[:first], steps[first:]
	for i := range steps {
		// A step lasts until the next begins, so that the steps add up.
		if i+1 < len(steps) && i+1 != first && steps[i+1].again == 0 {
			steps[i].to = steps[i+1].from
		}
	}
	if first > 0 {
		l.arrival = l.there[first-1].to
	}
	if len(l.back) > 0 {
		l.end = l.back[len(l.back)-1].to
	}
	return l
}

// far returns the time between the query's last sighting and the response's
// first.
func (l *leg) far() stretch {
	if len(l.there) == 0 || len(l.back) == 0 || l.there[len(l.there)-1].drop != nil {
		return stretch{from: l.arrival, to: l.arrival}
	}
	return stretch{known: true, from: l.arrival, to: l.back[0].from}
}

// group makes steps of the sightings, and of the drop, in order of time.
func group(e *trace.Exchange, base time.Duration) []step {
	path := slices.Clone(e.Path)
	slices.SortStableFunc(path, func(a, b trace.Sighting) int { return int(max(-1, min(1, a.Offset-b.Offset))) })
	var steps []step
	dropped := e.Drop == nil
	transmissions := 0
	for i, s := range path {
		if !dropped && e.Drop.Offset < s.Offset {
			steps = append(steps, dropStep(e.Drop, base))
			dropped = true
		}
		st := step{message: s.Message, netns: s.NetNS, src: s.Src, dst: s.Dst, wrap: wrapped(&path[i]), from: base + s.Offset.Duration(), to: base + s.Offset.Duration()}
		starts := s.Message == trace.MessageQuery && s.IfIndex == path[0].IfIndex && s.NetNS == path[0].NetNS && s.Direction == path[0].Direction
		if starts {
			if transmissions++; transmissions > 1 && i > 0 {
				st.again = transmissions
			}
		}
		dev := device{name: s.IfName, direction: directionWord(s.Direction)}
		if last := len(steps) - 1; last >= 0 && st.again == 0 && steps[last].continues(st) {
			steps[last].devices = append(steps[last].devices, dev)
			steps[last].to = st.to
			continue
		}
		st.devices = []device{dev}
		steps = append(steps, st)
	}
	if !dropped {
		steps = append(steps, dropStep(e.Drop, base))
	}
	return steps
}

func (s *step) continues(next step) bool {
	return s.drop == nil && s.message == next.message && s.netns == next.netns && s.src == next.src && s.dst == next.dst && s.wrap == next.wrap
}

func dropStep(d *trace.Drop, base time.Duration) step {
	at := base + d.Offset.Duration()
	return step{message: d.Message, netns: d.NetNS, from: at, to: at, drop: d}
}

// device is where a packet was seen, and which way it went through.
type device struct{ name, direction string }

func directionWord(d string) string {
	switch d {
	case trace.DirectionRX:
		return "in"
	case trace.DirectionTX:
		return "out"
	}
	return d
}

// steps tells a packet's way, with a line wherever its addresses changed.
func (s *story) steps(depth int, steps []step) {
	var before *step
	for i := range steps {
		st := &steps[i]
		if st.drop != nil {
			s.drop(depth, st)
			continue
		}
		if before != nil && before.message == st.message && st.again == 0 {
			s.translation(depth, before, st)
		}
		if st.again > 0 {
			s.again(depth, st, &steps[i-1])
		}
		labels := s.where(depth, st)
		r := row{depth: depth, label: labels[0], tone: travel, mark: markQuery, from: st.from, to: st.to}
		if st.message == trace.MessageResponse {
			r.mark = markResponse
		}
		s.add(r)
		for _, more := range labels[1:] {
			s.add(row{depth: depth, label: more})
		}
		if st.wrap != "" {
			s.note(depth+1, faint, "in %s", st.wrap)
		}
		before = st
	}
}

// again tells of a query that was sent again. Some clients do so with an answer
// in hand, because it says that the server failed.
func (s *story) again(depth int, st, before *step) {
	if before.message == trace.MessageResponse && before.drop == nil {
		s.note(depth, warning, "answered, and asked again (%d)", st.again)
		return
	}
	s.add(row{depth: depth, label: fmt.Sprintf("no answer: sent again (%d)", st.again), tone: bad, mark: markSilence, from: before.to, to: st.from})
}

// translation shows where an address was replaced.
func (s *story) translation(depth int, before, after *step) {
	query := before.message == trace.MessageQuery
	show := func(from, to netip.AddrPort, format string) {
		if from != to && from.IsValid() && to.IsValid() {
			s.note(depth, warning, format, from, to)
		}
	}
	if query {
		show(before.dst, after.dst, "⇄ Service %s → %s (DNAT)")
		show(before.src, after.src, "⇄ source %s → %s (SNAT)")
		return
	}
	show(before.src, after.src, "⇄ %s → Service %s (DNAT undone)")
	show(before.dst, after.dst, "⇄ %s → client %s (SNAT undone)")
}

// where names the place and devices of a step: one line where they fit in a
// label, else one for each.
func (s *story) where(depth int, st *step) []string {
	first := pad(s.places.of(st.netns), placeColumns) + " "
	var all strings.Builder
	for i, d := range st.devices {
		all.WriteString(d.name)
		switch {
		case i+1 == len(st.devices) || st.devices[i+1].direction != d.direction:
			all.WriteString(" " + d.direction)
			if i+1 < len(st.devices) {
				all.WriteString(", ")
			}
		default:
			all.WriteString(", ")
		}
	}
	if columns(first)+columns(all.String()) <= s.labels-indentOf(depth) {
		return []string{first + all.String()}
	}
	var lines []string
	for _, d := range st.devices {
		lines = append(lines, first+d.name+" "+d.direction)
		first = pad("", placeColumns) + " "
	}
	return lines
}

// drop marks where a packet ended.
func (s *story) drop(depth int, st *step) {
	d := st.drop
	device := ""
	if d.IfName != "" {
		device = " at " + d.IfName
	}
	s.add(row{depth: depth, label: "✗ DROPPED in " + s.places.of(d.NetNS) + device, tone: bad, mark: markDrop, from: st.from, to: st.from})
	reason := d.Reason
	if reason == "" {
		reason = "the kernel gives no reason"
	}
	where := place{netns: d.NetNS, alias: d.NetNSName}
	if d.Words != "" {
		s.note(depth+1, bad, "%s", d.Words)
	}
	s.note(depth+1, bad, "%s in %s, %s", reason, d.Where, where)
}

func endpoint(a netip.Addr, port uint16) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a, port).String()
}
