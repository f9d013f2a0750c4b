package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// maxSpareSteps is how many sightings an exchange has at most whose memory is used again.
const maxSpareSteps = 32

// fresh returns an exchange of which nothing is known.
func (t *Table) fresh() *open {
	ex := t.spare.Take()
	if ex.marks == nil {
		// Half of what a lookup through a Service has: what is never answered is most where room is short.
		ex.path, ex.marks, ex.journeys = trace.MakePath(4, 2, 2), make([]mark, 0, 4), make([]journey, 0, 2)
	}
	t.serial++
	ex.serial, ex.closed = t.serial, false
	return ex
}

// reclaim takes the memory of an exchange that is out of the table. A connection may
// remember one over TCP, of which only the lists are used again.
func (t *Table) reclaim(ex *open) {
	lists := open{serial: ex.serial, closed: true, path: ex.path, marks: ex.marks[:0], journeys: ex.journeys[:0]}
	small := ex.path.Len() <= maxSpareSteps && len(ex.journeys) <= maxSpareSteps
	kept := ex
	if ex.key.protocol == trace.TransportTCP {
		ex.path, ex.marks, ex.journeys = trace.Path{}, nil, nil
		kept = new(open)
	} else {
		lists.question, lists.clients, lists.servers = ex.question[:0], ex.clients[:0], ex.servers[:0]
	}
	if small {
		lists.path.Reset()
		*kept = lists
		t.spare.Give(kept)
	}
}

// peak is the most that tables held, which is what they have memory for.
type peak struct {
	open  int // since shrink last looked
	conns int // since they were made
	next  int64
}

// shrink lets go of the memory that only a burst needed.
func (t *Table) shrink(now int64) {
	if now < t.peak.next {
		return
	}
	t.peak.next = now + int64(spare.Every)
	t.spare.Trim()
	if spare.TooLarge(cap(t.due), t.peak.open) {
		t.due = append(make(agenda.Of[*open], 0, 2*len(t.due)), t.due...)
		t.aliases, t.waiting, t.datagrams, t.evicted = spare.Map(t.aliases), spare.Map(t.waiting), spare.Map(t.datagrams), nil
		for _, c := range [...]*chains{&t.keys, &t.sockets, &t.alike, &t.kin} {
			c.Resize()
		}
		t.buffers = buffers{} // it refers to exchanges that are over
	}
	if spare.TooLarge(t.peak.conns, len(t.conns)) {
		t.conns, t.clients, t.peak.conns = spare.Map(t.conns), spare.Map(t.clients), len(t.conns)
	}
	t.peak.open = len(t.due)
}
