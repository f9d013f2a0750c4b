package exchange

import (
	"encoding/binary"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// icmp ties an error about a DNS packet to its exchange.
func (t *Table) icmp(p *capture.Packet) {
	ex, response := t.quoted(p)
	if ex == nil {
		t.stats.Orphans++
		return
	}
	ex.last = p.Time
	if ex.record.ICMP != nil {
		return // the same at its next device, or about the next transmission
	}
	ex.record.ICMP = &trace.ICMP{
		Type: p.ICMP.Type, Code: p.ICMP.Code, From: p.Src.Addr(), Message: message(response), MTU: p.ICMP.MTU,
		Offset: trace.Seconds(p.Time - ex.first),
	}
}

// quoted returns the exchange of the packet that an error quotes.
func (t *Table) quoted(p *capture.Packet) (ex *open, response bool) {
	q := p.ICMP
	response = !slices.Contains(t.cfg.Ports, q.Dst.Port())
	client := q.Src
	if response {
		client = q.Dst
	}
	if p.NAT != nil {
		client = p.NAT.Original.Src
	}
	if q.Protocol == trace.TransportTCP {
		return t.quotedSegment(p, response), response
	}
	if h, err := parseHeader(q.Payload); err == nil {
		k := key{client: client, netns: loopbackOf(client, p), question: hash(h.question), id: h.id, protocol: q.Protocol}
		return t.openAt(k), h.response()
	}
	if len(q.Payload) < 2 {
		return nil, false
	}
	return t.search(p, client, binary.BigEndian.Uint16(q.Payload), q.Protocol), response
}

// quotedSegment returns the exchange of the first message that a quoted segment
// may be a part of.
func (t *Table) quotedSegment(p *capture.Packet, response bool) *open {
	q := p.ICMP
	k := connKeyOf(q.Src, q.Dst, p)
	if response {
		k = connKeyOf(q.Dst, q.Src, p)
	}
	c := t.conns[k]
	if c == nil {
		return nil
	}
	s := &c.query
	if response {
		s = &c.answer
	}
	for i := range s.recent {
		if m := &s.recent[i]; after(m.end, q.TCPSeq) && !m.ex.closed {
			return m.ex
		}
	}
	return nil
}
