package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// maxReusedSightings bounds the sightings of an exchange whose memory is reused.
const maxReusedSightings = 32

// fresh returns an empty exchange.
func (t *Table) fresh() *open {
	ex := t.free.Get()
	if ex.marks == nil {
		// Half of what a lookup through a Service has: what is never answered is most where room is short.
		ex.path, ex.marks, ex.journeys = trace.MakePath(4, 2, 2), make([]mark, 0, 4), make([]journey, 0, 2)
	}
	t.serial++
	ex.serial, ex.closed = t.serial, false
	return ex
}

// reclaim puts the memory of a removed exchange on the free list. A connection may still
// refer to one over TCP, of which only the slices are reused.
func (t *Table) reclaim(ex *open) {
	lists := open{serial: ex.serial, closed: true, path: ex.path, marks: ex.marks[:0], journeys: ex.journeys[:0]}
	small := ex.path.Len() <= maxReusedSightings && len(ex.journeys) <= maxReusedSightings
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
		t.free.Put(kept)
	}
}

// peak is the most that tables held, which is what they have memory for.
type peak struct {
	open  int // since shrink last looked
	conns int // since they were made
	next  int64
}

// shrink releases the memory that only a burst needed.
func (t *Table) shrink(now int64) {
	if now < t.peak.next {
		return
	}
	t.peak.next = now + int64(freelist.Every)
	t.free.Trim()
	if freelist.TooLarge(cap(t.due), t.peak.open) {
		t.due = append(make(agenda.Of[*open], 0, 2*len(t.due)), t.due...)
		t.aliases, t.waiting, t.datagrams, t.evicted = freelist.Compact(t.aliases), freelist.Compact(t.waiting), freelist.Compact(t.datagrams), nil
		for _, c := range [...]*chains{&t.keys, &t.sockets, &t.alike, &t.kin} {
			c.Resize()
		}
		t.buffers = buffers{} // it refers to exchanges that are over
	}
	if freelist.TooLarge(t.peak.conns, len(t.conns)) {
		t.conns, t.clients, t.peak.conns = freelist.Compact(t.conns), freelist.Compact(t.clients), len(t.conns)
	}
	t.peak.open = len(t.due)
}
