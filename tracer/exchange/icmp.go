package exchange

import (
	"encoding/binary"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// icmp attributes an error about a DNS packet to its exchange.
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
		Node:   t.cfg.Node, NetNS: p.NetNS, NetNSName: p.NetNSName, IfName: p.IfName, BPF: ex.rewritten(p, response),
	}
	if p.Kind != capture.Drop {
		ex.icmp.Direction = direction(p.Kind)
	}
}

// rewritten tells whether an eBPF program made the ICMP error out of the packet that it
// quotes: it is in the buffer of that packet, and no socket sends it. An error of the kernel
// (net/ipv4/icmp.c, net/ipv6/icmp.c), or of a process, has a buffer and a socket of its own,
// and the buffer of the packet is in use meanwhile.
func (ex *open) rewritten(p *capture.Packet, response bool) bool {
	if p.Kind != capture.TX || p.SKB == 0 || p.PID != 0 || p.CgroupID != 0 {
		return false
	}
	for i := len(ex.marks) - 1; i >= 0; i-- {
		m := &ex.marks[i]
		if m.is(inResponse) != response {
			continue
		}
		j := &ex.journeys[m.journey]
		return m.kind == capture.RX && m.netns == p.NetNS && j.skb == p.SKB && p.Time-j.last <= sameSKB
	}
	return false
}

// dropExplains revokes rewritten where the packet was dropped right after: the kernel sends
// the error before it frees the packet, which may have been in another buffer by then.
func (ex *open) dropExplains(p *capture.Packet, response bool) {
	if i := ex.icmp; i != nil && i.BPF && i.Message == messageName(response) && p.Time-ex.first-int64(i.Offset) <= sameSKB {
		i.BPF = false
	}
}

// quoted returns the exchange of the packet that an error quotes.
func (t *Table) quoted(p *capture.Packet) (ex *open, response bool) {
	q := p.ICMP
	response = !t.isServer(q.Dst.Port(), p.DstServer) && t.isServer(q.Src.Port(), p.SrcServer)
	if q.Protocol == trace.TransportTCP {
		return t.quotedSegment(p, response), response
	}
	h, err := parseHeader(q.Payload, nil)
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

// atSocket returns the open exchange of a socket with a DNS ID; nil if there are several,
// which cannot be distinguished.
func (t *Table) atSocket(s socket, id uint16) *open {
	var found *open
	n := 0
	for ex := range t.sockets.Of(s.hash(), maxAtSocket+1) {
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
