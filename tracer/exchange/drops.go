package exchange

import (
	"math"
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// duplicate tells drops of TCP segments of which everything had arrived before.
func duplicate(reason string) bool {
	return reason == "TCP_OLD_DATA" || reason == "TCP_OFOMERGE" || reason == "TCP_OLD_SEQUENCE"
}

// bystander records that a packet is not for the namespace that it came to. Nobody misses a
// copy that a bridge flooded; but if no other went on, the packet had a wrong link layer
// address.
func (t *Table) bystander(p *capture.Packet) {
	b := t.buffers.in(p)
	if b == nil {
		return
	}
	ex := b.ex
	for i := range ex.marks {
		if m := &ex.marks[i]; m.netns == p.NetNS && m.kind == capture.RX && ex.journeys[m.journey].skb == p.SKB {
			m.bits |= notForIt
		}
	}
	d := t.dropOf(ex, p, b.response)
	if d.Description == "" {
		d.Description = dropreason.Of("OTHERHOST", "").Description
	}
	ex.astray = &d
}

// wentAstray tells whether all copies of the last message ended in namespaces that it is not
// for, and none at its receiver.
func (ex *open) wentAstray() bool {
	if ex.astray == nil || len(ex.drops) > 0 || len(ex.rejected) > 0 {
		return false
	}
	response := ex.astray.Message == trace.MessageResponse
	if !response && ex.responded {
		return false
	}
	ends := make(map[uint16]*mark, len(ex.journeys))
	for i := range ex.marks {
		if m := &ex.marks[i]; m.is(inResponse) == response {
			ends[m.journey] = m
		}
	}
	for _, m := range ends {
		if !m.is(notForIt) {
			return false
		}
	}
	return len(ends) > 0
}

// drop notes that the kernel freed a packet of an exchange.
func (t *Table) drop(ex *open, p *capture.Packet, response bool) {
	if p.Protocol == trace.TransportTCP && duplicate(p.Reason) {
		return
	}
	d := t.dropOf(ex, p, response)
	if j := ex.droppedJourney(p, response); j != nil {
		if p.NetNS == 0 {
			ex.locate(p, j)
			d.NetNS, d.NetNSName = p.NetNS, p.NetNSName
		}
		d.Held = max(d.Offset-ex.begins(ex.number(j)), 0)
		j.dropped = true
		j.atSocket = j.atSocket || atSocket(p.Reason, p.Where)
	} else if !response && (ex.sent || ex.path.Len() == 0) {
		// It was sent, and got to no device.
		ex.sendings++
		ex.lastQuery = max(ex.lastQuery, p.Time)
		if p.SentAt != 0 {
			ex.lastQuery = max(ex.first, p.SentAt)
			d.Held = trace.Seconds(p.Time - ex.lastQuery)
		}
	}
	ex.dropExplains(p, response)
	if !response {
		ex.client.learn(p, t.cfg.Names)
	} else if noSocket(p) {
		ex.ended = true // nobody waits for it, or asks again
	}
	t.keepDrop(ex, d)
}

// begins returns when the packet of a journey was first seen.
func (ex *open) begins(journey uint16) trace.Seconds {
	i := slices.IndexFunc(ex.marks, func(m mark) bool { return m.journey == journey })
	if i < 0 {
		return math.MaxInt64
	}
	return ex.path.Offset(i)
}

// locate sets the namespace of a drop to that where its buffer was last seen: what waited in
// a closed socket has none of its own.
func (ex *open) locate(p *capture.Packet, j *journey) {
	n := ex.number(j)
	for i := len(ex.marks) - 1; i >= 0 && p.SKB != 0 && j.skb == p.SKB; i-- {
		if ex.marks[i].journey == n {
			d := ex.path.Device(i)
			p.NetNS, p.NetNSName = d.NetNS, d.NetNSName
			return
		}
	}
}

// keepDrop puts a drop on the record.
func (t *Table) keepDrop(ex *open, d trace.Drop) {
	if len(ex.drops) >= maxDrops {
		t.stats.Sightings++
		return
	}
	ex.drops = append(ex.drops, d)
}

// dropOf is what the record says of a drop.
func (t *Table) dropOf(ex *open, p *capture.Packet, response bool) trace.Drop {
	d := trace.Drop{
		Where: p.Where, Reason: p.Reason, Description: p.Description, Message: messageName(response), Node: t.cfg.Node, NetNS: p.NetNS,
		NetNSName: p.NetNSName, IfName: p.IfName, Offset: trace.Seconds(p.Time - ex.first), BPF: p.BPF,
		Fragment: p.Fragment != nil && p.Fragment.Offset > 0,
	}
	if !response && p.Dst.IsValid() && p.Dst != ex.server {
		d.Dst = p.Dst
	}
	if p.Table != nil {
		d.ConntrackCount, d.ConntrackMax = p.Table.Count, p.Table.Max
	}
	return d
}

// droppedJourney returns the journey that ends with a drop: that of the packet's buffer,
// else the last one to its place, or out of the place before. Nil if the packet was not
// seen before.
func (ex *open) droppedJourney(p *capture.Packet, response bool) *journey {
	for i := len(ex.journeys) - 1; i >= 0; i-- {
		if j := &ex.journeys[i]; j.skb == p.SKB && j.response == response && p.SKB != 0 {
			return j
		}
	}
	since := trace.Seconds(p.Time - ex.first - int64(Crossing))
	var before *journey
	for i := len(ex.marks) - 1; i >= 0; i-- {
		m := &ex.marks[i]
		if m.is(inResponse) != response || m.kind == capture.Read {
			continue
		}
		if ex.path.Offset(i) < since {
			break
		}
		if m.netns == p.NetNS || p.NetNS == 0 {
			return &ex.journeys[m.journey]
		}
		if before == nil {
			before = &ex.journeys[m.journey]
		}
	}
	if ex.sent {
		return nil
	}
	return before
}

// Prefixes of the reasons, and of the functions, by which sockets drop packets.
var (
	socketReasons = []string{"NO_SOCKET", "SOCKET_", "TCP_", "UDP_CSUM", "PROTO_MEM"}
	socketPlaces  = []string{"udp_", "udpv6_", "__udp", "tcp_", "__tcp"}
)

// atSocket tells whether a packet was dropped by its destination socket, or because nobody
// listens there: it had reached the namespace of its receiver.
func atSocket(reason, where string) bool {
	hasPrefix := func(s string) func(string) bool {
		return func(prefix string) bool { return strings.HasPrefix(s, prefix) }
	}
	return slices.ContainsFunc(socketReasons, hasPrefix(reason)) || slices.ContainsFunc(socketPlaces, hasPrefix(where))
}

// noSocket tells whether a datagram reached a host on which no socket has its port; before
// Linux 5.17 the place shows it (net/ipv4/udp.c, net/ipv6/udp.c).
func noSocket(p *capture.Packet) bool {
	return p.Reason == "NO_SOCKET" || p.Reason == "" && (p.Where == "__udp4_lib_rcv" || p.Where == "__udp6_lib_rcv")
}

// dropDecides tells whether the exchange failed because of a drop: of the response, or
// of the query if it did not reach its server. The drop of a copy that a bridge
// flooded, while the query went on, does not.
func (ex *open) dropDecides(queryArrived bool) bool {
	queries := 0
	for i := range ex.drops {
		d := &ex.drops[i]
		switch {
		case d.Message == trace.MessageResponse:
			return true
		case ex.reset == nil || !atSocket(d.Reason, d.Where): // else it was refused
			queries++
		}
	}
	if queries == 0 {
		return false
	}
	since := trace.Seconds(ex.lastQuery - ex.first)
	for i := range ex.marks {
		m := &ex.marks[i]
		if m.is(inResponse|notForIt) || ex.lost(m) {
			continue
		}
		switch {
		case queryArrived && (m.kind == capture.Delivered || m.kind == capture.RX && !ex.goesOn(i)):
			return false
		case m.kind == capture.TX && ex.path.Offset(i) >= since && !ex.goesOnLost(i):
			return false
		}
	}
	return true
}

// goesOnLost tells whether a forwarded query reached its next place in another buffer, and
// was dropped there.
func (ex *open) goesOnLost(i int) bool {
	for j := i + 1; j < len(ex.marks); j++ {
		if m := &ex.marks[j]; !m.is(inResponse) && m.kind == capture.RX && m.journey != ex.marks[i].journey {
			return ex.lost(m)
		}
	}
	return false
}
