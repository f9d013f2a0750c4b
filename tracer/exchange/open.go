package exchange

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// open is an exchange that is not over. It is used again for another when it is,
// with the memory of its lists.
type open struct {
	*emitted // nil when it was passed on and is over
	keys     []key
	name     []byte // QNAME in wire format
	qtype    uint16
	qclass   uint16

	first     int64 // monotonic time of the first sighting
	wall      time.Time
	lastQuery int64
	last      int64
	// The place of the first sighting is the client, or where the client's
	// packets enter the node.
	origin place
	// Responses that reached the origin and were not dropped there. A client
	// that closed its socket gets its response dropped after it arrived.
	arrived    []arrival
	asked      []netip.AddrPort // where the query went: who may answer
	pieces     []pieces
	fragmented []datagram
	connects   bool // the query is the SYN of a connection, on which nothing was asked yet
	answered   bool // a response was seen, anywhere
	dropSeen   bool
	due        int64
	index      int
	reported   int64 // when it was passed on without a response
	closed     bool  // out of the table: a connection may still remember it
}

// place is a device, and the direction in which a packet passes it.
type place struct {
	netns, ifindex uint32
	kind           capture.Kind
}

func placeOf(p *capture.Packet) place { return place{p.NetNS, p.IfIndex, p.Kind} }

type arrival struct {
	skb  uint64
	time int64 // of its last sighting
}

// begin makes ex the exchange of a query; false if its name cannot be read. at is
// the time of the packet.
func (ex *open) begin(k key, p *capture.Packet, at time.Time, h header, body []byte, size int) bool {
	n := len(h.question) - 4
	name, err := presentation(h.question[:n])
	if err != nil {
		return false
	}
	q := splitQuestion(h.question)
	ex.empty()
	*ex = open{
		emitted: ex.emitted, keys: append(ex.keys[:0], k), name: append(ex.name[:0], q.name...), qtype: q.qtype, qclass: q.qclass,
		first: p.Time, wall: at, lastQuery: p.Time, last: p.Time, origin: placeOf(p),
		arrived: ex.arrived[:0], asked: ex.asked[:0], pieces: ex.pieces[:0], fragmented: ex.fragmented[:0],
	}
	r := &ex.record
	r.V, r.Record = trace.Version, trace.KindExchange
	r.ClientIP, r.ClientPort = k.client.Addr(), k.client.Port()
	r.QName = name
	r.QType, r.QClass = dns.Type(q.qtype).String(), dns.Class(q.qclass).String()
	r.ID = h.id
	r.Opcode = h.opcode()
	r.RequestSize = size
	server := p.Dst
	if p.NAT != nil {
		server = p.NAT.Original.Dst
	}
	r.ServerIP, r.ServerPort = server.Addr(), server.Port()
	ex.readRequest(p.Protocol, h, body)
	return true
}

// empty makes the record that of nobody.
func (ex *open) empty() { *ex.emitted = emitted{record: trace.Exchange{Path: ex.record.Path[:0]}} }

// reusable tells whether nothing refers to the exchange when it is out of the table. A
// connection may remember the exchange of a message.
func (ex *open) reusable() bool { return ex.keys[0].protocol != trace.TransportTCP }

// readRequest fills in what a query says of the answers it can take: 512 bytes
// over UDP unless it says more (RFC 6891, section 6.2.5).
func (ex *open) readRequest(protocol uint8, h header, body []byte) {
	r := &ex.record
	opt := parseSections(body, h).edns
	r.DNSSECOK, r.Traceparent = opt.do, opt.traceparent
	if protocol == trace.TransportTCP {
		r.Protocol, r.BufSize = "tcp", dns.MaxMsgSize
		return
	}
	r.Protocol, r.BufSize = "udp", max(opt.bufSize, dns.MinMsgSize)
}

// response reads the response; of several the first that was seen counts.
func (ex *open) response(h header, body []byte, size int) {
	if ex.answered {
		return
	}
	ex.answered = true
	s := parseSections(body, h)
	r := &ex.record
	r.RCode = rcodeName(int(h.flags&0xf) | s.edns.rcodeHigh<<4)
	r.Truncated = h.flags&bitTC != 0
	r.Flags = h.setFlags()
	ex.parts.size, ex.parts.answers, ex.parts.minTTL = size, int(h.counts[0]), s.minTTL
	r.ResponseSize, r.AnswerCount = &ex.parts.size, &ex.parts.answers
	r.Answers = s.answers
	if s.hasTTL {
		r.MinTTL = &ex.parts.minTTL
	}
	r.ExtendedError = s.edns.extended
}

// sighted notes a packet at a device; false if there is no room for it.
func (ex *open) sighted(p *capture.Packet, response bool, names Names) bool {
	ex.last = p.Time
	r := &ex.record
	ex.translated(p, response)
	if response {
		ex.arrival(p)
		if learn(&ex.parts.server, p, names) {
			r.Server = &ex.parts.server
		}
	} else {
		if ex.origin == placeOf(p) {
			r.Transmissions++
			ex.lastQuery = p.Time
		}
		if learn(&ex.parts.client, p, names) {
			r.Client = &ex.parts.client
		}
	}
	if len(r.Path) >= maxSightings {
		return false
	}
	s := trace.Sighting{
		Offset: trace.Seconds(p.Time - ex.first), Message: message(response), NetNS: p.NetNS, NetNSName: p.NetNSName,
		IfIndex: p.IfIndex, IfName: p.IfName, Direction: trace.DirectionTX, Src: p.Src, Dst: p.Dst, VLAN: p.VLAN,
	}
	if p.Kind == capture.RX {
		s.Direction = trace.DirectionRX
	}
	if o := p.Outer; o != nil {
		s.Tunnel = &trace.Tunnel{Src: o.Src, Dst: o.Dst, VNI: o.VNI}
	}
	r.Path = append(r.Path, s)
	return true
}

// learn adds what a packet proves of who sent it; false if it proves nothing.
func learn(e *trace.Endpoint, p *capture.Packet, names Names) bool {
	if p.PID == 0 && p.CgroupID == 0 || e.PID != 0 {
		return false
	}
	if p.PID != 0 {
		e.Process, e.PID, e.TID = p.Comm, p.PID, p.TID
		if p.Thread != p.Comm {
			e.Thread = p.Thread
		}
	}
	if p.CgroupID != 0 && e.Cgroup == "" && names != nil {
		e.Cgroup, e.Container = names.Cgroup(p.CgroupID)
	}
	return e.PID != 0 || e.Cgroup != ""
}

// arrival notes a response that came to where the query was first seen.
func (ex *open) arrival(p *capture.Packet) {
	if p.NetNS != ex.origin.netns {
		return
	}
	if ex.origin.kind == capture.RX {
		// The client is beyond the node: the response leaves the way it came.
		if p.Kind != capture.TX || p.IfIndex != ex.origin.ifindex {
			return
		}
	} else if p.Kind != capture.RX {
		return
	}
	for i := range ex.arrived {
		if ex.arrived[i].skb == p.SKB {
			ex.arrived[i].time = p.Time
			return
		}
	}
	ex.arrived = append(ex.arrived, arrival{p.SKB, p.Time})
}

// dropped notes a drop. The last one counts: it decided.
func (ex *open) dropped(p *capture.Packet, response bool) {
	ex.last = p.Time
	ex.dropSeen = true
	ex.translated(p, response) // what waits for a neighbour is sent nowhere before
	ex.record.Drop = &trace.Drop{
		Where: p.Where, Reason: p.Reason, Words: p.Words, Message: message(response), NetNS: p.NetNS, NetNSName: p.NetNSName,
		IfName: p.IfName, Offset: trace.Seconds(p.Time - ex.first),
	}
	if p.Table != nil {
		ex.record.Drop.ConntrackCount, ex.record.Drop.ConntrackMax = p.Table.Count, p.Table.Max
	}
	if !response || p.NetNS != ex.origin.netns {
		return
	}
	for i := range ex.arrived {
		if ex.arrived[i].skb == p.SKB {
			ex.arrived = append(ex.arrived[:i], ex.arrived[i+1:]...)
			return
		}
	}
}

// deadline returns when the exchange is over.
func (ex *open) deadline(timeout time.Duration) int64 {
	if len(ex.arrived) > 0 || ex.reported != 0 && ex.last > ex.reported && ex.last > ex.lastQuery {
		return ex.last + int64(settle)
	}
	if ex.reported != 0 {
		return max(ex.lastQuery+int64(timeout), ex.reported+int64(late))
	}
	return ex.lastQuery + int64(timeout)
}
