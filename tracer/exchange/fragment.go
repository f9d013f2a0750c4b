package exchange

import (
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// maxDatagrams bounds the table of fragmented datagrams that are under way, all
// over the node.
const maxDatagrams = 4096

// datagram names an IP datagram whose fragments are under way (RFC 791, section
// 2.3).
type datagram struct {
	src, dst netip.Addr
	netns    uint32 // as loopbackOf has it
	protocol uint8
	id       uint32
}

// fragmented is the exchange of a datagram, known from its first fragment.
type fragmented struct {
	ex       *open
	response bool
}

// pieces counts the fragments of one datagram at one place.
type pieces struct {
	at       device
	of       datagram
	response bool
	seen     int
	have     []span // of the datagram, apart and in order
	size     int    // of the whole; 0: the last fragment has not come
	sighting int    // of the first fragment there; -1: none
}

// device is where packets pass, and in which direction.
type device struct {
	netns, ifindex uint32
	kind           capture.Kind
}

func deviceOf(p *capture.Packet) device { return device{p.NetNS, p.IfIndex, p.Kind} }

// udpHeaderLen is what a datagram's first fragment has before the message (RFC 768).
const udpHeaderLen = 8

// span is a stretch of a datagram's payload.
type span struct{ from, to int }

// maxSpans bounds the stretches that are apart: a datagram of 65,535 bytes in
// fragments of the least MTU (RFC 791: 68 bytes) that come in the worst order has
// more, and is then said to be incomplete.
const maxSpans = 64

// add takes in a stretch, which may overlap what is there: a copy, or an attack
// (RFC 5722), does not fill a hole.
func (x *pieces) add(s span) {
	i := 0
	for ; i < len(x.have) && x.have[i].to < s.from; i++ {
	}
	j := i
	for ; j < len(x.have) && x.have[j].from <= s.to; j++ {
		s.from, s.to = min(s.from, x.have[j].from), max(s.to, x.have[j].to)
	}
	if i == j && len(x.have) >= maxSpans {
		return
	}
	x.have = slices.Replace(x.have, i, j, s)
}

// bytes returns how much of the datagram came.
func (x *pieces) bytes() int {
	n := 0
	for _, s := range x.have {
		n += s.to - s.from
	}
	return n
}

func datagramOf(p *capture.Packet) datagram {
	return datagram{p.Src.Addr(), p.Dst.Addr(), loopbackOf(p.Src, p), p.Protocol, p.Fragment.ID}
}

// firstFragment notes a fragment that names its exchange.
func (t *Table) firstFragment(ex *open, p *capture.Packet, response bool) {
	if ex.closed {
		return
	}
	d := datagramOf(p)
	if t.datagrams[d].ex != ex {
		if len(ex.fragmented) >= maxSightings {
			t.stats.Fragments++ // of a client that sends the same query in ever new datagrams
			return
		}
		if len(t.datagrams) >= maxDatagrams {
			t.stats.Evicted += uint64(len(t.datagrams))
			clear(t.datagrams)
		}
		ex.fragmented = append(ex.fragmented, d)
	}
	t.datagrams[d] = fragmented{ex, response}
	t.piece(ex, p, d, response)
}

// laterFragment notes a fragment that has no ports.
func (t *Table) laterFragment(p *capture.Packet) {
	d := datagramOf(p)
	f, known := t.datagrams[d]
	if !known {
		t.stats.Orphans++
		return
	}
	if p.Kind == capture.Drop {
		f.ex.sent = false
		t.see(f.ex, p, f.response, false)
		return
	}
	f.ex.last = max(f.ex.last, p.Time)
	t.piece(f.ex, p, d, f.response)
}

// piece counts a fragment at its place.
func (t *Table) piece(ex *open, p *capture.Packet, d datagram, response bool) {
	if p.Kind == capture.Drop {
		return
	}
	var at *pieces
	for i := range ex.pieces {
		if x := &ex.pieces[i]; x.at == deviceOf(p) && x.of == d {
			at = x
		}
	}
	if at == nil {
		if len(ex.pieces) >= maxSightings {
			t.stats.Fragments++
			return
		}
		ex.pieces = append(ex.pieces, pieces{at: deviceOf(p), of: d, response: response, sighting: -1})
		at = &ex.pieces[len(ex.pieces)-1]
	}
	if p.Fragment.Offset == 0 && at.sighting < 0 {
		at.sighting = len(ex.marks) - 1
	}
	at.seen++
	end := p.Fragment.Offset + p.Fragment.Length
	at.add(span{p.Fragment.Offset, end})
	if !p.Fragment.More {
		at.size = end
	}
	t.account(ex)
}

// complete tells whether all of the datagram came.
func (x *pieces) complete() bool { return x.size > 0 && x.have[0].from == 0 && x.have[0].to >= x.size }

// wholeDatagrams marks where all fragments of a message came.
func (ex *open) wholeDatagrams() {
	for i := range ex.pieces {
		if x := &ex.pieces[i]; x.sighting >= 0 && x.sighting < len(ex.marks) && x.complete() {
			ex.marks[x.sighting].bits |= isWhole
		}
	}
}

// fragmentedSize returns the size of a response in fragments; 0 where no last
// fragment was seen.
func (ex *open) fragmentedSize() int {
	for i := range ex.pieces {
		if x := &ex.pieces[i]; x.response && x.size > udpHeaderLen {
			return x.size - udpHeaderLen
		}
	}
	return 0
}

// fragments tells what came of a fragmented message at the last place that it
// reached; nil if none was fragmented.
func (ex *open) fragments() *trace.Fragments {
	if len(ex.pieces) == 0 {
		return nil
	}
	last := ex.pieces[len(ex.pieces)-1]
	f := &trace.Fragments{Message: messageName(last.response), Seen: last.seen, SeenBytes: last.bytes()}
	if last.size > 0 {
		f.Size = &last.size
		f.Complete = last.complete()
	}
	return f
}
