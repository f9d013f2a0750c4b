package exchange

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/chain"
)

// open is an exchange that is not over: what was seen of it, in compact form. Its record is
// made when it is passed on.
type open struct {
	key     key
	server  netip.AddrPort   // as the client addressed it
	sentDst netip.AddrPort   // where its first packet went: after what its own namespace translates
	clients []key            // other addresses of the client
	servers []netip.AddrPort // other addresses of the server
	nat     translation
	conn    *conn // of TCP; nil: UDP

	question []byte // QNAME, QTYPE, QCLASS in wire format; none: an attempt to connect
	name     string // QNAME in presentation format
	opcode   uint8
	dnssec   bool
	bufSize  uint16
	size     int32 // of the query
	stamp    string

	first     int64 // monotonic time of the first packet
	wall      time.Time
	lastQuery int64 // when it was last sent
	last      int64

	sendings    int32  // how often it was sent
	outstanding int32  // others of its pair that waited when it began
	resent      int32  // segments of the response that its sender sent again
	omitted     int32  // sightings
	index       int32  // in due of the table
	serial      uint32 // tells those apart that were in the same memory one after the other

	path     trace.Path
	marks    []mark // one for every sighting in path
	journeys []journey
	drops    []trace.Drop
	astray   *trace.Drop // the last that came where it was not for; nil: none did
	rejected []trace.Rejection
	reset    *trace.Reset
	icmp     *trace.ICMP
	pieces   []pieces

	fragmented    []datagram
	client        who
	serverProcess who
	answer        *answer // what the response says
	said          answer  // memory of answer
	guess         *answer // what one from an unknown address says
	respelled     bool    // answer has the name in other upper and lower case than the query
	sent          bool    // the packet at hand is sent by a socket here
	connects      bool    // the query is the SYN of a connection, on which nothing was asked yet
	connected     bool    // and it was opened, after the attempt was reported
	listenFull    bool    // the last SYN that reached its listener found no room
	responded     bool    // a response was seen, anywhere
	ended         bool    // no response can come any more
	final         bool    // and that was so when it was reported: a query that TCP repeats is no news
	waits         bool    // for a response: counted in outstanding of the table
	closed        bool    // out of the table: a connection may still remember it
	// The query, or the response, may have been read by a read that is not known.
	queryUnsure, responseUnsure bool

	waiting    uint64 // its pair, while it waits
	links      [chainings]chain.Links[open]
	age        neighbours
	reported   int64 // when it was passed on without a response
	lostEvents uint64
	counted    int // bytes
}

// mark is what the milestones need to know of a sighting.
type mark struct {
	netns   uint32
	ifindex uint32
	journey uint16
	kind    capture.Kind
	bits    uint8
}

// Bits of a mark.
const (
	inResponse = 1 << iota // else in the query
	bySocket               // a socket sent it here
	isWhole                // all of the message had come to this place
	notForIt               // a copy of which the namespace knows that it is not for it
)

func (m *mark) is(bit uint8) bool { return m.bits&bit != 0 }

// journey is the way of one packet buffer.
type journey struct {
	skb      uint64
	last     int64
	at       capture.Kind // where it was last seen
	why      rejection
	response bool
	dropped  bool
	atSocket bool // dropped by the socket that it is for, or for lack of one
	taken    bool // its client can take it for a response
	counted  bool // its rejection is on the record
}

// who sent or received, as far as a packet proves.
type who struct {
	pid, tid          int32
	process, thread   string
	cgroup, container string
}

// learn adds what a packet proves.
func (w *who) learn(p *capture.Packet, names Names) {
	if p.PID == 0 && p.CgroupID == 0 || w.pid != 0 {
		return
	}
	if p.PID != 0 {
		w.process, w.pid, w.tid = p.Comm, int32(p.PID), int32(p.TID)
		if p.Thread != p.Comm {
			w.thread = p.Thread
		}
	}
	if p.CgroupID != 0 && w.cgroup == "" && names != nil {
		w.cgroup, w.container = names.Cgroup(p.CgroupID)
	}
}

// begin opens the exchange of a query; nil if its name cannot be read.
func (t *Table) begin(k key, p *capture.Packet, m *message, server netip.AddrPort) *open {
	name, err := presentation(m.question[:len(m.question)-4])
	if err != nil {
		return nil
	}
	if s := t.at(k); s.len() >= maxWithKey {
		t.evict(s.one)
	}
	ex := t.newOpen(k, p, server)
	ex.question, ex.name = append(ex.question, m.question...), name
	ex.opcode, ex.size = uint8(m.opcode()), int32(m.size)
	ex.readRequest(m)
	t.index(ex)
	t.waits(ex)
	t.add(ex)
	return ex
}

func (t *Table) newOpen(k key, p *capture.Packet, server netip.AddrPort) *open {
	ex := t.fresh()
	ex.key, ex.server, ex.sentDst, ex.first = k, server, p.Dst, p.Time
	if p.Kind == capture.Drop && p.SentAt != 0 && p.SentAt < p.Time {
		ex.first = p.SentAt
	}
	ex.wall, ex.lastQuery, ex.last = t.cfg.Wall(ex.first), ex.first, p.Time
	return ex
}

// readRequest reads the size of the answers that a query allows: 512 bytes over UDP unless
// EDNS says more (RFC 6891, section 6.2.5).
func (ex *open) readRequest(m *message) {
	opt := parseSections(m.body, m.header).edns
	ex.dnssec, ex.stamp = opt.do, opt.traceparent
	ex.bufSize = dns.MaxMsgSize
	if ex.key.protocol == trace.TransportUDP {
		ex.bufSize = uint16(max(opt.bufSize, dns.MinMsgSize))
	}
}

func (ex *open) qtype() uint16 {
	if len(ex.question) < 4 {
		return 0
	}
	return binary.BigEndian.Uint16(ex.question[len(ex.question)-4:])
}

// transfers tells whether it is a zone transfer, which takes several messages (RFC
// 5936, RFC 1995).
func (ex *open) transfers() bool {
	return ex.key.protocol == trace.TransportTCP && (ex.qtype() == dns.TypeAXFR || ex.qtype() == dns.TypeIXFR)
}

// clientNetNS returns the namespace of the client; false if that was not seen.
func (ex *open) clientNetNS() (uint32, bool) {
	if len(ex.marks) > 0 && ex.marks[0].kind == capture.TX && !ex.marks[0].is(inResponse) {
		return ex.marks[0].netns, true
	}
	if i := ex.left().Index(); i >= 0 {
		return ex.marks[i].netns, true
	}
	return 0, false
}

// atClient tells whether a packet of the response is in the client's namespace, or, if that
// is not observed, where it leaves what is.
func (ex *open) atClient(p *capture.Packet) bool {
	if netns, ok := ex.clientNetNS(); ok {
		return netns == p.NetNS && (p.Kind == capture.RX || p.Kind == capture.Delivered)
	}
	return len(ex.marks) > 0 && p.NetNS == ex.marks[0].netns && p.Kind == capture.TX && p.IfIndex == ex.marks[0].ifindex
}

// noSocketOfClient tells whether a response came to its client's namespace and found no
// socket that takes it there.
func (ex *open) noSocketOfClient(p *capture.Packet) bool {
	netns, ok := ex.clientNetNS()
	return ok && p.Kind == capture.Drop && netns == p.NetNS && noSocket(p)
}

// journey returns the way of a packet's buffer; false if it begins here.
func (ex *open) journey(p *capture.Packet, response bool) (*journey, bool) {
	for i := len(ex.journeys) - 1; i >= 0; i-- {
		j := &ex.journeys[i]
		// A freed buffer is soon reused: TCP retransmits at once what an ICMP error says was
		// too big.
		if j.response != response || j.dropped && p.Kind != capture.Drop || ex.endedBefore(j, p) {
			continue
		}
		// A buffer that waits in a queue or a socket is not reused. A socket may send the same
		// message again.
		most := waitsForCPU
		if ex.sent {
			most = sameSKB
		}
		if p.Kind == capture.Read || j.skb == p.SKB && (p.Time-j.last <= most || p.Kind == capture.Drop || p.Kind == capture.Delivered) {
			j.last, j.at = p.Time, p.Kind
			return j, true
		}
	}
	if len(ex.journeys) >= maxSightings {
		return &ex.journeys[len(ex.journeys)-1], true
	}
	ex.journeys = append(ex.journeys, journey{skb: p.SKB, last: p.Time, at: p.Kind, response: response})
	return &ex.journeys[len(ex.journeys)-1], false
}

// endedBefore tells whether a journey was over before a packet in its buffer was seen: a
// socket ends one, and a socket that sends begins another.
func (ex *open) endedBefore(j *journey, p *capture.Packet) bool {
	switch p.Kind {
	case capture.RX:
		return j.at >= capture.Delivered
	case capture.TX:
		return j.at >= capture.Delivered || ex.sent && j.at != capture.TX
	}
	return false
}

// number returns the index of a journey.
func (ex *open) number(j *journey) uint16 {
	return uint16((uintptr(unsafe.Pointer(j)) - uintptr(unsafe.Pointer(unsafe.SliceData(ex.journeys)))) / unsafe.Sizeof(journey{}))
}

// see notes a packet of an exchange at a place; whole tells whether all of its message
// has come there.
func (t *Table) see(ex *open, p *capture.Packet, response, whole bool) {
	if ex.closed || ex.final && !response {
		return
	}
	switch {
	case p.Unsure:
		ex.queryUnsure, ex.responseUnsure = ex.queryUnsure || !response, ex.responseUnsure || response
		return
	case p.Kind == capture.Drop:
		t.drop(ex, p, response)
	case ex.path.Len() >= maxSightings || !t.sighted(ex, p, response, whole):
		t.stats.Sightings++
		ex.omitted++
	}
	ex.last = max(ex.last, p.Time)
	t.account(ex)
	t.hurry(ex)
}

// sighted adds a sighting; false if there is no room for it.
func (t *Table) sighted(ex *open, p *capture.Packet, response, whole bool) bool {
	around := trace.Envelope{Src: p.Src, Dst: p.Dst, VLAN: p.VLAN}
	if o := p.Outer; o != nil {
		around.Tunnel = &trace.Tunnel{Kind: o.Kind, Src: o.Src, Dst: o.Dst, VNI: o.VNI}
	}
	if !ex.path.AppendAt(t.devices.of(p, t.cfg.Node), trace.Seconds(p.Time-ex.first), messageName(response), direction(p.Kind), &around) {
		return false
	}
	j, _ := ex.journey(p, response)
	m := mark{netns: p.NetNS, ifindex: p.IfIndex, journey: ex.number(j), kind: p.Kind}
	if whole {
		m.bits |= isWhole
	}
	toSocket := p.Kind == capture.Delivered || p.Kind == capture.Read
	known := ex.client.pid
	if response {
		m.bits |= inResponse
		ex.responded = true
		t.waitsNoMore(ex)
		ex.learn(p, t.cfg.Names, toSocket)
	} else {
		ex.learn(p, t.cfg.Names, !toSocket)
		if ex.sends(p) {
			ex.sendings++
			ex.lastQuery = p.Time
			if p.Kind == capture.TX {
				t.places.learn(p.NetNS, asks)
			}
		}
	}
	if ex.client.pid != known {
		t.shareProcess(ex)
	}
	if ex.sent {
		m.bits |= bySocket
	}
	ex.marks = append(ex.marks, m)
	return true
}

// socketKept is how long after a query another with the same source port is taken for the
// same socket's: the kernel reuses the ports of closed sockets in no order.
const socketKept = int64(time.Second)

// shareProcess sets the process of an exchange in the others of its socket of which it is
// unknown: what waited for a link address is sent in an arbitrary context.
func (t *Table) shareProcess(ex *open) {
	if ex.key.protocol != trace.TransportUDP {
		return
	}
	for other := range t.sockets.Of(ex.socket().hash(), maxAtSocket) {
		apart := other.first - ex.first
		if other != ex && other.client.pid == ex.client.pid && max(apart, -apart) <= socketKept {
			return // those before it were named with it
		}
		if other.client.pid != 0 || max(apart, -apart) > socketKept {
			continue
		}
		other.client.process, other.client.pid = ex.client.process, ex.client.pid
		if other.client.cgroup == "" {
			other.client.cgroup, other.client.container = ex.client.cgroup, ex.client.container
		}
	}
}

// learn notes who the packet proves the client, or the server, to be.
func (ex *open) learn(p *capture.Packet, names Names, client bool) {
	if client {
		ex.client.learn(p, names)
	} else {
		ex.serverProcess.learn(p, names)
	}
}

// sends tells whether a sighting of the query, not yet in marks, is where it is sent,
// or enters what is observed.
func (ex *open) sends(p *capture.Packet) bool {
	if len(ex.marks) == 0 || ex.sent && p.Kind == capture.TX {
		return true
	}
	return ex.marks[0].netns == p.NetNS && ex.marks[0].kind == p.Kind && ex.marks[0].ifindex == p.IfIndex && !ex.marks[0].is(inResponse)
}

func direction(k capture.Kind) string {
	switch k {
	case capture.RX:
		return trace.DirectionRX
	case capture.Delivered:
		return trace.DirectionDelivered
	case capture.Read:
		return trace.DirectionRead
	default:
		return trace.DirectionTX
	}
}

func messageName(response bool) string {
	if response {
		return trace.MessageResponse
	}
	return trace.MessageQuery
}

// bytes returns the memory that the exchange takes.
func (ex *open) bytes() int {
	n := int(unsafe.Sizeof(*ex)) + indexBytes + 8 + ex.path.Size() + cap(ex.question) + len(ex.name) +
		cap(ex.marks)*int(unsafe.Sizeof(mark{})) + cap(ex.journeys)*int(unsafe.Sizeof(journey{})) +
		cap(ex.clients)*(int(unsafe.Sizeof(key{}))+aliasBytes) + cap(ex.servers)*int(unsafe.Sizeof(netip.AddrPort{})) +
		cap(ex.drops)*int(unsafe.Sizeof(trace.Drop{})) + cap(ex.rejected)*int(unsafe.Sizeof(trace.Rejection{})) +
		cap(ex.fragmented)*2*int(unsafe.Sizeof(datagram{})) + len(ex.stamp)
	for i := range ex.pieces {
		n += int(unsafe.Sizeof(pieces{})) + cap(ex.pieces[i].have)*int(unsafe.Sizeof(span{}))
	}
	for _, a := range []*answer{ex.answer, ex.guess} {
		if a != nil {
			n += cap(a.answers) * (int(unsafe.Sizeof(trace.Answer{})) + 24)
		}
	}
	if ex.guess != nil {
		n += int(unsafe.Sizeof(answer{}))
	}
	return n
}
