package exchange

import (
	"encoding/binary"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// icmp ties an error about a DNS packet to its exchange.
func (t *Table) icmp(p *capture.Packet) {
	ex, response := t.quoted(p)
	if ex == nil || ex.closed {
		t.stats.Orphans++
		return
	}
	ex.last = max(ex.last, p.Time)
	if ex.icmp != nil {
		return // the same at its next device, or about the next transmission
	}
	ex.icmp = &trace.ICMP{
		Type: p.ICMP.Type, Code: p.ICMP.Code, From: p.Src.Addr(), Message: messageName(response), MTU: p.ICMP.MTU,
		Offset: trace.Seconds(p.Time - ex.first),
	}
}

// quoted returns the exchange of the packet that an error quotes.
func (t *Table) quoted(p *capture.Packet) (ex *open, response bool) {
	q := p.ICMP
	response = !t.isServer(q.Dst.Port(), p.DstServer) && t.isServer(q.Src.Port(), p.SrcServer)
	if q.Protocol == trace.TransportTCP {
		return t.quotedSegment(p, response), response
	}
	h, err := parseHeader(q.Payload)
	if err == nil {
		response = h.response()
	}
	client, server := q.Src, q.Dst
	if response {
		client, server = q.Dst, q.Src
	}
	if p.NAT != nil {
		client = p.NAT.Original.Src
	}
	k := key{client: client, netns: loopbackOf(client, p), id: h.id, protocol: q.Protocol}
	if err == nil {
		k.question = hash(h.question)
		s := t.at(k)
		return oneOf(&s, server), response
	}
	if len(q.Payload) < 2 {
		return nil, false
	}
	k.id = binary.BigEndian.Uint16(q.Payload)
	return t.atSocket(socket{client, k.netns, k.protocol}, k.id), response
}

// oneOf returns the exchange with a server, or the only one there is.
func oneOf(s *slot, server netip.AddrPort) *open {
	for i := range s.len() {
		if ex := s.at(i); ex.goesTo(server) {
			return ex
		}
	}
	if s.len() == 1 {
		return s.one
	}
	return nil
}

// atSocket returns the one open exchange of a socket with a DNS ID. Two cannot be told
// apart.
func (t *Table) atSocket(s socket, id uint16) *open {
	var found *open
	n := 0
	for ex := t.sockets[s]; ex != nil; ex = ex.next {
		if n++; n > maxAtSocket {
			return nil
		}
		if ex.key.id != id {
			continue
		}
		if found != nil {
			return nil
		}
		found = ex
	}
	return found
}

// quotedSegment returns the exchange of the first message that a quoted segment
// may be a part of, or that of the attempt to connect.
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
	s := c.stream(!response)
	for i := range s.recent {
		if m := &s.recent[i]; after(m.end, q.TCPSeq) && !m.ex.closed {
			return m.ex
		}
	}
	return c.attempt
}
