package render

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// placeColumns is the width of the column of places.
const placeColumns = 8

// steps tells a packet's way, with a line wherever its addresses changed.
func (s *story) steps(depth int, e *trace.Exchange, steps []step) {
	var before *step
	for i := range steps {
		st := &steps[i]
		if st.event != nil {
			s.event(depth, st)
			continue
		}
		if before != nil && before.message == st.message && st.again == 0 {
			s.translation(depth, e, before, st)
		}
		if st.again > 0 && i > 0 {
			s.again(depth, st, &steps[i-1])
		}
		s.step(depth, e, st)
		before = st
	}
}

// step tells where a packet was, and when.
func (s *story) step(depth int, e *trace.Exchange, st *step) {
	if st.queued > 0 {
		s.add(row{depth: depth, label: s.at(st) + "in the socket's queue", tone: work, mark: markWork, from: st.from - st.queued, to: st.from})
	}
	labels := s.where(depth, e, st)
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
	if st.held != nil {
		s.add(row{depth: depth, label: heldFor(st.held.event.drop), tone: bad, mark: markSilence, from: st.to, to: st.held.from})
	}
}

// again tells of a query that was sent again. Some clients do so with an answer
// in hand, because it says that the server failed.
func (s *story) again(depth int, st, before *step) {
	if before.message == trace.MessageResponse && before.event == nil {
		s.note(depth, warning, "answered, and asked again (%d)", st.again)
		return
	}
	s.add(row{depth: depth, label: fmt.Sprintf("no answer: sent again (%d)", st.again), tone: bad, mark: markSilence, from: before.to, to: st.from})
}

// translation shows where an address was replaced. Only connection tracking shows
// that it was a Service's, or whose.
func (s *story) translation(depth int, e *trace.Exchange, before, after *step) {
	show := func(from, to netip.AddrPort, proven string) {
		if from == to || !from.IsValid() || !to.IsValid() {
			return
		}
		switch {
		case e.NAT == nil:
			s.note(depth, warning, "⇄ %s → %s", from, to)
		case e.NAT.Source == trace.NATConntrack:
			s.note(depth, warning, proven, from, to)
		default:
			s.note(depth, warning, "⇄ %s → %s (%s)", from, to, translationWords(e.NAT.Source))
		}
	}
	if before.message == trace.MessageQuery {
		show(before.dst, after.dst, "⇄ Service %s → %s (DNAT)")
		show(before.src, after.src, "⇄ source %s → %s (SNAT)")
		return
	}
	show(before.src, after.src, "⇄ %s → Service %s (DNAT undone)")
	show(before.dst, after.dst, "⇄ %s → client %s (SNAT undone)")
}

// translationWords says what shows that two addresses are of one exchange, where
// connection tracking does not.
func translationWords(source string) string {
	if source == trace.NATBuffer {
		return "address rewritten on the way"
	}
	return "same client, ID and question"
}

// at names the place of a step, padded to its column.
func (s *story) at(st *step) string { return pad(s.places.of(st.place), placeColumns) + " " }

// where names the place and devices of a step: one line where they fit in a
// label, else one for each.
func (s *story) where(depth int, e *trace.Exchange, st *step) []string {
	first := s.at(st)
	if st.read {
		who := process(e.Server)
		if st.message == trace.MessageResponse {
			who = process(e.Client)
		}
		if who == "" {
			return []string{first + "read by its process"}
		}
		return []string{first + "read by " + who}
	}
	var all strings.Builder
	for i, d := range st.devices {
		all.WriteString(d.name)
		last := i+1 == len(st.devices)
		if d.direction != "" && (last || st.devices[i+1].direction != d.direction) {
			all.WriteString(" " + d.direction)
		}
		if !last {
			all.WriteString(", ")
		}
	}
	if columns(first)+columns(all.String()) <= s.labels-indentOf(depth) {
		return []string{first + all.String()}
	}
	var lines []string
	for _, d := range st.devices {
		lines = append(lines, strings.TrimRight(first+d.name+" "+d.direction, " "))
		first = pad("", placeColumns) + " "
	}
	return lines
}

func endpoint(a netip.Addr, port uint16) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a, port).String()
}
