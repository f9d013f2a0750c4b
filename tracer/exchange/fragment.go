package exchange

import (
	"net/netip"

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
	at       place
	of       datagram
	response bool
	seen     int
	bytes    int
	size     int // of the whole; 0: the last fragment has not come
}

func datagramOf(p *capture.Packet) datagram {
	return datagram{p.Src.Addr(), p.Dst.Addr(), p.Protocol, p.Fragment.ID}
}

// firstFragment notes a fragment that names its exchange.
func (t *Table) firstFragment(ex *open, p *capture.Packet, response bool) {
	d := datagramOf(p)
	if _, known := t.datagrams[d]; !known {
		if len(t.datagrams) >= maxDatagrams {
			t.stats.Evicted += uint64(len(t.datagrams))
			clear(t.datagrams)
		}
		ex.fragmented = append(ex.fragmented, d)
	}
	t.datagrams[d] = fragmented{ex, response}
	ex.piece(p, d, response)
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
		f.ex.dropped(p, f.response)
		return
	}
	f.ex.last = p.Time
	f.ex.piece(p, d, f.response)
}

// piece counts a fragment at its place.
func (ex *open) piece(p *capture.Packet, d datagram, response bool) {
	if p.Kind == capture.Drop {
		return
	}
	var at *pieces
	for i := range ex.pieces {
		if x := &ex.pieces[i]; x.at == placeOf(p) && x.of == d {
			at = x
		}
	}
	if at == nil {
		if len(ex.pieces) >= maxSightings {
			return
		}
		ex.pieces = append(ex.pieces, pieces{at: placeOf(p), of: d, response: response})
		at = &ex.pieces[len(ex.pieces)-1]
	}
	at.seen++
	at.bytes += p.Fragment.Length
	if !p.Fragment.More {
		at.size = p.Fragment.Offset + p.Fragment.Length
	}
}

// fragments tells what came of a fragmented message at the last place that it
// reached; nil if none was fragmented.
func (ex *open) fragments() *trace.Fragments {
	if len(ex.pieces) == 0 {
		return nil
	}
	last := ex.pieces[len(ex.pieces)-1]
	f := &trace.Fragments{Message: message(last.response), Seen: last.seen, SeenBytes: last.bytes}
	if last.size > 0 {
		f.Size = &last.size
		f.Complete = last.bytes >= last.size
	}
	return f
}
