package exchange

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// open is an exchange that is not over.
type open struct {
	record trace.Exchange
	keys   []key
	name   []byte // QNAME in wire format
	qtype  uint16
	qclass uint16

	first     int64 // monotonic time of the first sighting
	lastQuery int64
	last      int64
	// The place of the first sighting is the client, or where the client's
	// packets enter the node.
	origin place
	// Responses that reached the origin and were not dropped there. A client
	// that closed its socket gets its response dropped after it arrived.
	arrived  []arrival
	answered bool // a response was seen, anywhere
	dropSeen bool
	due      int64
	index    int
	reported int64 // when it was passed on without a response
	closed   bool  // out of the table: a connection may still remember it
}

type place struct {
	netns, ifindex uint32
	kind           capture.Kind
}

type arrival struct {
	skb  uint64
	time int64 // of its last sighting
}

// newOpen begins an exchange with a query, or returns nil if its name cannot be
// read.
func newOpen(k key, p *capture.Packet, h header, body []byte, size int) *open {
	q := splitQuestion(bytes.Clone(h.question))
	name, err := q.presentation()
	if err != nil {
		return nil
	}
	ex := &open{
		keys: []key{k}, name: q.name, qtype: q.qtype, qclass: q.qclass,
		first: p.Time, lastQuery: p.Time, last: p.Time,
		origin: place{p.NetNS, p.IfIndex, p.Kind},
	}
	r := &ex.record
	r.V, r.Record = trace.Version, trace.KindExchange
	r.ClientIP, r.ClientPort = k.client.Addr(), k.client.Port()
	r.QName = name
	r.QType, r.QClass = dns.Type(q.qtype).String(), dns.Class(q.qclass).String()
	r.ID = h.id
	r.Opcode = int(h.flags>>11) & 0xf
	r.RequestSize = size
	server := p.Dst
	if p.NAT != nil {
		server = p.NAT.Original.Dst
	}
	r.ServerIP, r.ServerPort = server.Addr(), server.Port()
	ex.readEDNS(p.Protocol, h, body)
	return ex
}

// readEDNS fills in what a query says of the answers it can take: 512 bytes over
// UDP unless it says more (RFC 6891, section 6.2.5).
func (ex *open) readEDNS(protocol uint8, h header, body []byte) {
	r := &ex.record
	opt, found := parseEDNS(body, h)
	if found {
		r.DNSSECOK = opt.do
		r.Traceparent = opt.traceparent
	}
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
	code := int(h.flags & 0xf)
	if opt, found := parseEDNS(body, h); found {
		code |= opt.rcodeHigh << 4
	}
	r := &ex.record
	r.RCode = dns.RcodeToString[code]
	if r.RCode == "" {
		r.RCode = strconv.Itoa(code)
	}
	r.Truncated = h.flags&bitTC != 0
	r.ResponseSize = &size
}

// sighted notes a packet at a device; false if there is no room for it.
func (ex *open) sighted(p *capture.Packet, response bool) bool {
	ex.last = p.Time
	r := &ex.record
	ex.translated(p, response)
	if response {
		ex.arrival(p)
		if p.PID != 0 && r.Server == nil {
			r.Server = &trace.Endpoint{Process: p.Comm, PID: p.PID}
		}
	} else {
		if ex.origin == (place{p.NetNS, p.IfIndex, p.Kind}) {
			r.Transmissions++
			ex.lastQuery = p.Time
		}
		if p.PID != 0 && r.Client == nil {
			r.Client = &trace.Endpoint{Process: p.Comm, PID: p.PID}
		}
	}
	if len(r.Path) >= maxSightings {
		return false
	}
	s := trace.Sighting{
		Offset: trace.Seconds(p.Time - ex.first), Message: message(response), NetNS: p.NetNS, NetNSName: p.NetNSName,
		IfIndex: p.IfIndex, IfName: p.IfName, Direction: trace.DirectionTX, Src: p.Src, Dst: p.Dst,
	}
	if p.Kind == capture.RX {
		s.Direction = trace.DirectionRX
	}
	if r.Path == nil {
		// Through a Service and a bridge a lookup is seen ten times.
		r.Path = make([]trace.Sighting, 0, 12)
	}
	r.Path = append(r.Path, s)
	return true
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
	ex.record.Drop = &trace.Drop{
		Where: p.Where, Reason: p.Reason, Message: message(response), NetNS: p.NetNS, NetNSName: p.NetNSName,
		IfName: p.IfName, Offset: trace.Seconds(p.Time - ex.first),
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

// translated notes the addresses after translation: from connection tracking,
// or because a query is addressed to another server than before.
func (ex *open) translated(p *capture.Packet, response bool) {
	r := &ex.record
	if r.NAT != nil && r.NAT.Source == trace.NATConntrack {
		return
	}
	if p.NAT != nil {
		n := &trace.NAT{Source: trace.NATConntrack}
		if a := p.NAT.Reply.Src; a != p.NAT.Original.Dst {
			n.ServerIP, n.ServerPort = split(a)
		}
		if a := p.NAT.Reply.Dst; a != p.NAT.Original.Src {
			n.ClientIP, n.ClientPort = split(a)
		}
		r.NAT = n
		return
	}
	if server := netip.AddrPortFrom(r.ServerIP, r.ServerPort); !response && r.NAT == nil && p.Dst != server {
		r.NAT = &trace.NAT{Source: trace.NATMatched}
		r.NAT.ServerIP, r.NAT.ServerPort = split(p.Dst)
	}
}

func split(a netip.AddrPort) (netip.Addr, *uint16) {
	port := a.Port()
	return a.Addr(), &port
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

// finish completes the record.
func (ex *open) finish(wall func(int64) time.Time) *trace.Exchange {
	r := &ex.record
	if r.Time.IsZero() { // else reported before: the time identifies it
		r.Time = wall(ex.first)
	}
	// The server sees the translated client: its name for the lookup counts.
	client := netip.AddrPortFrom(r.ClientIP, r.ClientPort)
	if r.NAT != nil && r.NAT.ClientPort != nil {
		client = netip.AddrPortFrom(r.NAT.ClientIP, *r.NAT.ClientPort)
	}
	r.Flow = trace.NewFlow(ex.keys[0].protocol, client, r.ID, ex.qtype, ex.qclass, ex.name)
	r.TraceID = trace.NewTraceID(r.Time, r.Flow)
	r.Transmissions = max(r.Transmissions, 1)
	switch {
	case len(ex.arrived) > 0:
		r.Outcome = trace.OutcomeAnswered
		r.Duration = trace.SecondsPtr(time.Duration(ex.arrived[0].time - ex.first))
	case ex.dropSeen:
		r.Outcome = trace.OutcomeDropped
	default:
		r.Outcome = trace.OutcomeUnanswered
	}
	if r.Path == nil {
		r.Path = []trace.Sighting{}
	}
	return r
}

func message(response bool) string {
	if response {
		return trace.MessageResponse
	}
	return trace.MessageQuery
}
