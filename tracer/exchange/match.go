package exchange

import (
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// message is a DNS message of a packet, or of a TCP stream.
type message struct {
	header
	body []byte // as far as it was captured
	size int    // on the wire
	part bool   // the first fragment of it
	// What was in the buffer of its packet before, within waitsForCPU; nil: that is not known.
	held *buffer
}

// query returns the exchange of a query between two addresses as the packet, or
// connection tracking, has them; it begins one for a query that is new. Nil if its
// question cannot be read.
func (t *Table) query(p *capture.Packet, m *message, client, server netip.AddrPort) *open {
	before := m.held.justBefore(p)
	fresh := sent(p, before)
	k := keyOf(p, &m.header, client, before)
	ex, source := t.known(p, k, server, fresh, m.held)
	if ex == nil {
		if p.Kind == capture.Read {
			t.stats.Orphans++ // its exchange is over
			return nil
		}
		if t.echoed(p, m) {
			return nil
		}
		if ex = t.begin(k, p, m, server); ex == nil {
			t.stats.NotDNS++
			return nil
		}
	}
	if p.Protocol == trace.TransportUDP {
		ex.sent = fresh
		t.translated(ex, p, source)
	}
	t.buffers.note(p, ex, false)
	return ex
}

// known returns the exchange of a query that was seen before, and how it is known that
// it is the same where its addresses are others. What a socket sends is new, whatever
// its addresses: a proxy may ask with the address, port and ID of its client, and a
// forwarder as dnsmasq does over TCP with its client's ID.
func (t *Table) known(p *capture.Packet, k key, server netip.AddrPort, fresh bool, before *buffer) (*open, string) {
	// A client's address is translated where a packet is sent: not between two receptions.
	if !fresh && before != nil && !before.response && before.ex.asks(k) {
		if ex := before.ex; ex.knows(k) && ex.goesTo(server) || !ex.passed(p) && (ex.knows(k) || before.kind != capture.RX || p.Kind != capture.RX) {
			t.alias(k, ex)
			return ex, trace.NATBuffer
		}
	}
	s := t.at(k)
	var found *open
	for i := range s.len() {
		ex := s.at(i)
		switch {
		case fresh && (ex.server != server || !ex.sender(p)):
		case !fresh && !ex.goesTo(server):
		case found == nil, ex.likelier(found, p):
			found = ex
		}
	}
	if found != nil || fresh {
		return found, trace.NATMatched
	}
	// A translation that nothing proves: the one exchange that fits.
	for i := range s.len() {
		ex := s.at(i)
		if p.Time-ex.last > int64(Crossing) || ex.passed(p) {
			continue
		}
		if found != nil {
			return nil, ""
		}
		found = ex
	}
	return found, trace.NATMatched
}

// likelier tells whether a query is more likely of ex than of another exchange with its
// addresses.
func (ex *open) likelier(other *open, p *capture.Packet) bool {
	if p.Kind == capture.Read {
		if waits := ex.unreadAt(p, 0); waits != other.unreadAt(p, 0) {
			return waits
		}
	}
	return ex.last > other.last
}

// unreadAt tells whether a message of the exchange is unread in a socket of a packet's
// namespace: then a read there is of that message. The addresses do not show it, as those of
// a transparent proxy and its client are the same.
func (ex *open) unreadAt(p *capture.Packet, message uint8) bool {
	for i := len(ex.marks) - 1; i >= 0; i-- {
		if m := &ex.marks[i]; m.netns == p.NetNS && m.bits&inResponse == message && m.kind != capture.RX {
			return m.kind == capture.Delivered
		}
	}
	return false
}

// asks tells whether it is an exchange with that ID and question.
func (ex *open) asks(k key) bool {
	return ex.key.question == k.question && ex.key.id == k.id && ex.key.protocol == k.protocol && !ex.connects &&
		(k.netns == 0 || k.netns == ex.key.netns)
}

// goesTo tells whether the query goes to an address: as the client addressed it, or
// after translation.
func (ex *open) goesTo(server netip.AddrPort) bool {
	return ex.server == server || slices.Contains(ex.servers, server)
}

// passed tells whether the query was seen at the place of a packet since it was last sent: a
// packet there with other addresses is another query.
func (ex *open) passed(p *capture.Packet) bool {
	since := trace.Seconds(ex.lastQuery - ex.first)
	for i := len(ex.marks) - 1; i >= 0; i-- {
		if ex.path.Offset(i) < since {
			return false
		}
		if m := &ex.marks[i]; m.kind == p.Kind && m.netns == p.NetNS && m.ifindex == p.IfIndex && !m.is(inResponse) {
			return true
		}
	}
	return false
}

// sender tells whether a packet that a socket sends may be of the client: it is in the
// client's namespace, and of the same process as far as known.
func (ex *open) sender(p *capture.Packet) bool {
	if netns, ok := ex.clientNetNS(); ok {
		return netns == p.NetNS && (p.PID == 0 || ex.client.pid == 0 || int32(p.PID) == ex.client.pid)
	}
	// The first packet was lost, or dropped at once: a packet is the client's if its
	// namespace received none.
	return !slices.ContainsFunc(ex.marks, func(m mark) bool { return m.netns == p.NetNS })
}

// response returns the exchange of a response; nil if there is none, or its receiver cannot
// take it.
func (t *Table) response(p *capture.Packet, m *message) *open {
	before := m.held.justBefore(p)
	fresh := sent(p, before)
	k := keyOf(p, &m.header, clientOf(p, true), before)
	ex := t.answers(p, k, fresh, m.held)
	if ex == nil {
		t.misfit(p, m, k)
		return nil
	}
	ex.sent = fresh
	t.buffers.note(p, ex, true)
	t.aliasClient(ex, p)
	if !t.judge(ex, p, m) {
		return nil
	}
	t.translatedResponse(ex, p)
	return ex
}

// answers returns the exchange with the ID and the question of a response.
func (t *Table) answers(p *capture.Packet, k key, fresh bool, before *buffer) *open {
	if !fresh && before != nil && before.response && before.ex.asks(k) {
		return t.instead(before.ex, p, k)
	}
	s := t.at(k)
	if s.len() == 1 {
		return s.one
	}
	// Several: the server tells which, then where the query went, then the time.
	var found *open
	best := 0
	for i := range s.len() {
		ex := s.at(i)
		rank := 1
		if p.Kind == capture.Read && ex.unreadAt(p, inResponse) {
			rank += 16
		}
		if ex.mayAnswer(p) {
			rank += 8
		}
		if fresh && ex.endedIn(p.NetNS) || !fresh && ex.cameBy(p) {
			rank += 4
		}
		if !fresh && ex.responded && p.Time-ex.last <= sameSKB {
			rank += 2
		} else if !ex.responded {
			rank++
		}
		if rank > best || rank == best && ex.first > found.first {
			found, best = ex, rank
		}
	}
	return found
}

// instead returns the exchange of a response that was taken for one of ex: another one if
// its source address shows so only now.
func (t *Table) instead(ex *open, p *capture.Packet, k key) *open {
	if ex.mayAnswer(p) {
		return ex
	}
	s := t.at(k)
	if s.len() < 2 {
		return ex
	}
	for i := range s.len() {
		other := s.at(i)
		if j, known := ex.journey(p, true); other.server == p.Src && known && j.why == stray {
			j.why, j.counted = wrongAddress, true
			return other
		}
	}
	return ex
}

// mayAnswer tells whether a response comes from where the query went. Any host may answer a
// multicast query (RFC 6762, section 6.7).
func (ex *open) mayAnswer(p *capture.Packet) bool {
	return ex.goesTo(p.Src) || ex.server.Addr().IsMulticast() || p.NAT != nil && ex.goesTo(p.NAT.Original.Dst)
}

// cameBy tells whether the query was seen at the place of a packet of the response: at its
// device, or, where the packet is at a socket, sent from its namespace.
func (ex *open) cameBy(p *capture.Packet) bool {
	if p.Kind == capture.Delivered || p.Kind == capture.Read {
		netns, ok := ex.clientNetNS()
		return ok && netns == p.NetNS
	}
	return slices.ContainsFunc(ex.marks, func(m mark) bool {
		return !m.is(inResponse) && m.netns == p.NetNS && m.ifindex == p.IfIndex && m.kind != p.Kind
	})
}

// endedIn tells whether the query was last seen to come into a namespace.
func (ex *open) endedIn(netns uint32) bool {
	for i := len(ex.marks) - 1; i >= 0; i-- {
		if m := &ex.marks[i]; !m.is(inResponse) {
			return m.netns == netns && m.kind != capture.TX
		}
	}
	return false
}
