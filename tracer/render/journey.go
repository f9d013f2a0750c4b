package render

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// queueShown is how long a message waits in a socket before that gets a row of its
// own.
const queueShown = time.Millisecond

// stretch is the time that a query spent at a server, as the packets show it.
type stretch struct {
	known    bool
	read     bool // it begins where the server's process read the query
	from, to time.Duration
	base     time.Duration // where the offsets of the server's record begin
}

// step is one row of a packet's way: sightings that follow each other in one
// namespace with the same addresses, or something that happened to it.
type step struct {
	message  string
	place    trace.Place
	devices  []device
	src, dst netip.AddrPort
	from, to time.Duration
	again    int    // this is the nth transmission, from 2
	wrap     string // what carried the packet here
	read     bool   // a process took it out of its socket
	queued   time.Duration
	held     *step // the drop that it was kept for
	event    *event
}

// device is where a packet was seen, and which way it went through.
type device struct{ name, direction string }

// journey is the way of an exchange's packets there and back.
type journey struct {
	exchange *trace.Exchange
	there    []step
	back     []step
	arrival  time.Duration // the last sighting on the way there
	end      time.Duration // the last of the response on the way back, before its receiver read it
}

// newJourney groups the sightings of an exchange that begins at base.
func newJourney(e *trace.Exchange, base time.Duration) *journey {
	j := &journey{exchange: e, arrival: base}
	steps := group(e, base)
	first := wayBack(steps)
	j.there, j.back = steps[:first], steps[first:]
	for i := range steps {
		// A step lasts until the next begins, so that the steps add up to what the
		// client waited; a long wait, in a socket or before a drop, is reported by itself.
		k := nextOfPacket(steps, i)
		if k == len(steps) || i < first && k >= first || steps[k].again != 0 || steps[i].icmpError() {
			continue
		}
		next := &steps[k]
		switch wait := next.from - steps[i].to; {
		case wait >= queueShown && next.read:
			next.queued = wait
		case wait >= queueShown && next.event != nil && next.event.drop != nil:
			steps[i].held = next
		case !next.takesResponse():
			steps[i].to = next.from
		}
	}
	if first > 0 {
		j.arrival = j.there[first-1].to
	}
	for i := range j.back {
		if !j.back[i].takesResponse() && !j.back[i].icmpError() {
			j.end = j.back[i].to
		}
	}
	return j
}

// nextOfPacket returns the index of the step after i, past errors about the packet: they go a
// way of their own, and nothing waits for them.
func nextOfPacket(steps []step, i int) int {
	for i++; i < len(steps) && steps[i].icmpError(); i++ {
	}
	return i
}

// takesResponse tells whether a step is a process that takes a response out of its
// socket: that came before, and how long it lay there is the process's own affair.
func (s *step) takesResponse() bool { return s.read && s.message == trace.MessageResponse }

// icmpError tells whether a step is an error about a message.
func (s *step) icmpError() bool { return s.event != nil && s.event.icmp != nil }

// wayBack returns the index of the step with which the way back begins: after the
// last query before the first response.
func wayBack(steps []step) int {
	first := 0
	for i, st := range steps {
		switch {
		case st.message == trace.MessageQuery:
			first = i + 1
		case st.event == nil:
			return first
		}
	}
	return first
}

// atServer returns the time between the query's last sighting and the response's
// first.
func (j *journey) atServer() stretch {
	response := slices.IndexFunc(j.back, isResponse)
	if len(j.there) == 0 || response < 0 || j.there[len(j.there)-1].event != nil {
		return stretch{from: j.arrival, to: j.arrival}
	}
	return stretch{known: true, read: j.there[len(j.there)-1].read, from: j.arrival, to: j.back[response].from}
}

// answered tells whether a response was seen, at least on its way.
func (j *journey) answered() bool { return slices.ContainsFunc(j.back, isResponse) }

func isResponse(st step) bool { return st.event == nil && st.message == trace.MessageResponse }

// group makes steps of the sightings, and of what else happened, in order of time.
func group(e *trace.Exchange, base time.Duration) []step {
	path := sightings(e)
	pending := events(e)
	var steps []step
	happened := func(until trace.Seconds) {
		for len(pending) > 0 && pending[0].at < until {
			steps = append(steps, pending[0].step(base))
			pending = pending[1:]
		}
	}
	transmissions := 0
	for i := range path {
		s := &path[i]
		happened(s.Offset)
		st := newStep(s, base)
		if s.Message == trace.MessageQuery && s.Device == path[0].Device && s.Direction == path[0].Direction {
			if transmissions++; transmissions > 1 {
				st.again = transmissions
			}
		}
		if last := len(steps) - 1; last >= 0 && st.again == 0 && steps[last].continues(&st) {
			steps[last].devices = append(steps[last].devices, st.devices...)
			steps[last].to = st.to
			continue
		}
		steps = append(steps, st)
	}
	for _, x := range pending {
		steps = append(steps, x.step(base))
	}
	return steps
}

// sightings returns those of an exchange in order of time.
func sightings(e *trace.Exchange) []trace.Sighting {
	path := make([]trace.Sighting, 0, e.Path.Len())
	for _, s := range e.Path.All() {
		path = append(path, s)
	}
	slices.SortStableFunc(path, func(a, b trace.Sighting) int { return int(max(-1, min(1, a.Offset-b.Offset))) })
	return path
}

func newStep(s *trace.Sighting, base time.Duration) step {
	at := base + s.Offset.Duration()
	st := step{message: s.Message, place: s.Place(), src: s.Src, dst: s.Dst, wrap: wrapped(s), from: at, to: at}
	if s.Direction == trace.DirectionRead {
		st.read, st.wrap = true, ""
		return st
	}
	st.devices = []device{deviceOf(s)}
	return st
}

// continues tells whether the next sighting belongs into the same row.
func (s *step) continues(next *step) bool {
	return s.event == nil && !s.read && !next.read && s.message == next.message && s.place == next.place &&
		s.src == next.src && s.dst == next.dst && (s.wrap == next.wrap || next.devices[0] == socketDevice)
}

// socketDevice stands for the socket into whose queue a message came.
var socketDevice = device{name: "socket"}

func deviceOf(s *trace.Sighting) device {
	switch s.Direction {
	case trace.DirectionDelivered:
		return socketDevice
	case trace.DirectionRX:
		return device{s.IfName, "in"}
	case trace.DirectionTX:
		return device{s.IfName, "out"}
	}
	return device{s.IfName, s.Direction}
}

// process names who reads the socket at an end of an exchange.
func process(e *trace.Endpoint) string {
	switch {
	case e == nil || e.Process == "" && e.PID == 0:
		return ""
	case e.PID == 0:
		return e.Process
	case e.Process == "":
		return fmt.Sprintf("pid %d", e.PID)
	}
	return fmt.Sprintf("%s[%d]", e.Process, e.PID)
}
