// Package exchange is the second step of the tracer: it pairs packets, seen at
// many places, into queries and their responses.
//
// A query is known by its transport, the client's address and port, the DNS ID
// and the question; the server's address is left out, because a Service's
// address is translated on the way. Where the client's address is translated
// too, the kernel's connection tracking tells both.
package exchange

import (
	"container/heap"
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// settle is how long an answered exchange stays open for what may still come:
// the response on its last devices, a drop at the client's socket, a duplicate.
const settle = 100 * time.Millisecond

// late is how long an exchange that was reported unanswered is remembered:
// CoreDNS gives up on its upstreams after 6 s, resolvers retry after 5 s from
// the same port. What still comes makes a second, fuller record of it.
const late = 5 * time.Second

// Crossing is how long a query may have been under way before it is seen first,
// where its first sightings were lost.
const Crossing = 10 * time.Millisecond

// Defaults and bounds of the table. An open exchange with twenty sightings has
// some four kilobytes, so the bound is about 100 MB; at 10,000 lookups a second
// answered ones need some 1,000 places, and with every query unanswered it takes
// less than three seconds to fill.
const (
	DefaultTimeout = 5 * time.Second
	DefaultMaxOpen = 24576
	maxSightings   = 256 // of one exchange: a loop must not eat the node's memory
	maxKeys        = 8   // addresses that one client is known by
)

// Names names what packets carry numbers of.
type Names interface {
	// Cgroup returns the path of a cgroup below the root of cgroup2, and the id of
	// the container that it is; empty where they are unknown.
	Cgroup(id uint64) (path, container string)
}

// Config of a Table. Wall converts the monotonic time of packets to UTC.
type Config struct {
	Ports   []uint16      // of servers; tells the client's end of a TCP connection
	Timeout time.Duration // 0: DefaultTimeout
	MaxOpen int           // 0: DefaultMaxOpen
	Wall    func(mono int64) time.Time
	Names   Names  // nil: none
	Node    string // this one's name; empty: unknown
}

// Stats counts what a Table could not report as an exchange. All only grow,
// but for Open.
type Stats struct {
	Open       int
	Evicted    uint64 // reported early, because the table was full
	NotDNS     uint64 // packets on a DNS port that are no DNS message, or multicast DNS between equals
	Orphans    uint64 // responses, fragments and ICMP errors whose query was not seen, was given up, or went elsewhere
	Sightings  uint64 // not kept, because the exchange had too many
	Fragments  uint64 // of an exchange with too many, not counted to its datagrams
	Addresses  uint64 // of a client that an exchange is not known by, because it had too many
	Unreadable uint64 // TCP segments whose place in the stream is unknown
	Unfinished uint64 // still waiting for a response at the end
	Cut        uint64 // left out, because the share of lookups that is reported changed meanwhile
	NoConnect  uint64 // dropped packets that asked for a TCP connection
}

// Table holds the open exchanges. It is for one goroutine and has no clock: time
// is what packets and Advance say.
type Table struct {
	cfg       Config
	open      map[key]*open
	due       dueHeap
	conns     map[connKey]*conn
	datagrams map[datagram]fragmented
	recent    recent
	sweep     int64
	searches  int
	evicted   []*trace.Exchange // because the table was full, until Advance
	unused    spare.Of[open]
	records   spare.Of[emitted]
	paths     paths
	lent      lent
	peak      peak
	stats     Stats
}

type key struct {
	client   netip.AddrPort
	netns    uint32 // as loopbackOf has it
	question uint64
	id       uint16
	protocol uint8
}

// New returns an empty table.
func New(cfg Config) *Table {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxOpen == 0 {
		cfg.MaxOpen = DefaultMaxOpen
	}
	return &Table{cfg: cfg, open: map[key]*open{}, conns: map[connKey]*conn{}, datagrams: map[datagram]fragmented{}}
}

// Packet takes the next packet; packets come in order of time.
func (t *Table) Packet(p *capture.Packet) {
	if p.Kind == capture.Drop && benign(p.Reason) {
		return
	}
	switch {
	case p.ICMP != nil:
		t.icmp(p)
	case p.Fragment != nil && p.Fragment.Offset > 0:
		t.laterFragment(p)
	case p.Protocol == trace.TransportTCP:
		t.segment(p)
	default:
		t.datagram(p)
	}
}

// datagram takes a UDP packet, or its first fragment.
func (t *Table) datagram(p *capture.Packet) {
	if amongEquals(p) {
		t.stats.NotDNS++
		return
	}
	var ex *open
	response := true
	if h, err := parseHeader(p.Payload); err == nil {
		response = h.response()
		ex = t.find(p, h, clientOf(p, response), p.Payload, p.PayloadLen)
	} else if ex = t.bare(p, clientOf(p, true), p.Payload, p.PayloadLen); ex == nil {
		t.stats.NotDNS++
	}
	if ex == nil {
		return
	}
	t.see(ex, p, response)
	if p.Fragment != nil {
		t.firstFragment(ex, p, response)
	}
}

// amongEquals tells multicast DNS between two of those that speak it (RFC 6762,
// section 5.2): queries to everybody, to which everybody is answered, or nobody: no
// exchange, and silence means nothing. A simple resolver that asks from a port of
// its own (section 5.1) is answered by itself.
func amongEquals(p *capture.Packet) bool {
	return p.Src.Port() == p.Dst.Port() && p.Dst.Addr().IsMulticast()
}

// benign tells drops that take nothing from anybody: a bridge floods copies to
// ports whose host they are not for.
func benign(reason string) bool { return reason == "OTHERHOST" }

// clientOf returns the client's address before any translation.
func clientOf(p *capture.Packet, response bool) netip.AddrPort {
	switch {
	case p.NAT != nil:
		return p.NAT.Original.Src
	case response:
		return p.Dst
	}
	return p.Src
}

// find returns the exchange of a message, opening one for a new query, or nil.
// body is the message as far as it was captured, size its length on the wire.
func (t *Table) find(p *capture.Packet, h header, client netip.AddrPort, body []byte, size int) *open {
	ex := t.recent.same(p, &h, client)
	if ex == nil {
		ex = t.lookUp(p, h, client, body, size)
	}
	if ex == nil {
		return nil
	}
	if h.response() && !ex.mayAnswer(p) {
		t.stats.Orphans++
		return nil
	}
	if p.NAT != nil && p.NAT.Reply.Dst != p.NAT.Original.Src {
		// From here on the client has another address: know it by both.
		alias := ex.keys[0]
		alias.client = p.NAT.Reply.Dst
		alias.netns = loopbackOf(alias.client, p)
		t.alias(alias, ex)
	}
	if h.response() {
		ex.response(h, body, size)
	}
	t.recent.note(p, ex, h.response())
	return ex
}

// lookUp does so for a packet that was not seen just before.
func (t *Table) lookUp(p *capture.Packet, h header, client netip.AddrPort, body []byte, size int) *open {
	k := key{client: client, netns: loopbackOf(client, p), question: hash(h.question), id: h.id, protocol: p.Protocol}
	ex := t.openAt(k)
	switch {
	case ex != nil:
		return ex
	case h.response():
		t.stats.Orphans++
		return nil
	}
	if ex = t.fromSameBuffer(p, k); ex != nil {
		return ex
	}
	if ex = t.begin(k, p, h, body, size); ex == nil {
		t.stats.NotDNS++
	}
	return ex
}

// fromSameBuffer returns the exchange of a query whose client was translated where
// connection tracking cannot be read.
func (t *Table) fromSameBuffer(p *capture.Packet, k key) *open {
	ex := t.recent.query(p, k)
	if ex != nil {
		t.alias(k, ex)
	}
	return ex
}

func (t *Table) alias(k key, ex *open) {
	if _, taken := t.open[k]; taken {
		return
	}
	if len(ex.keys) >= maxKeys {
		t.stats.Addresses++
		return
	}
	t.open[k] = ex
	ex.keys = append(ex.keys, k)
}

func (t *Table) begin(k key, p *capture.Packet, h header, body []byte, size int) *open {
	ex := t.fresh()
	if !ex.begin(k, p, t.cfg.Wall(p.Time), h, body, size) {
		t.reuse(ex)
		return nil
	}
	t.add(ex)
	return ex
}

// add holds an exchange that has begun, in the place of the oldest if there is no
// room.
func (t *Table) add(ex *open) {
	if len(t.due) >= t.cfg.MaxOpen {
		oldest := heap.Pop(&t.due).(*open)
		if oldest.worthTelling() {
			t.evicted = append(t.evicted, t.emitLast(oldest))
		}
		t.stats.Evicted++
		t.forget(oldest)
	}
	t.open[ex.keys[0]] = ex
	ex.due = ex.first + int64(t.cfg.Timeout)
	heap.Push(&t.due, ex)
	t.peak.open = max(t.peak.open, len(t.due))
}

// see notes a packet of an exchange at a place.
func (t *Table) see(ex *open, p *capture.Packet, response bool) {
	if ex.closed {
		return
	}
	if !response {
		ex.sentTo(p)
	}
	if p.Kind == capture.Drop {
		ex.dropped(p, response)
		return
	}
	ex.record.Path = t.paths.grown(ex.record.Path)
	if !ex.sighted(p, response, t.cfg.Names) {
		t.stats.Sightings++
		ex.record.PathOmitted++
	}
	// An answered exchange is over after settle, long before its timeout.
	if due := ex.deadline(t.cfg.Timeout); due < ex.due {
		ex.due = due
		heap.Fix(&t.due, ex.index)
	}
}

// Lost notes that events were lost between two times: an exchange that was open
// then may miss some. One that began right after may miss its beginning.
func (t *Table) Lost(events uint64, first, last int64) {
	for _, ex := range t.due {
		if ex.first-int64(Crossing) <= last && first <= ex.deadline(t.cfg.Timeout) {
			ex.record.LostEvents += events
		}
	}
}

// Advance passes on every exchange that is over by now, which is on the clock of
// the packets. The receiver owns the exchange. One that was passed on without a
// response is passed on again, with the same time, if something of it comes
// late; the later record replaces the earlier.
func (t *Table) Advance(now int64, emit func(*trace.Exchange)) {
	for _, ex := range t.evicted {
		emit(ex)
	}
	clear(t.evicted)
	t.evicted = t.evicted[:0]
	for len(t.due) > 0 && t.due[0].due <= now {
		ex := t.due[0]
		// The heap is not touched by every packet; see whether it is still due.
		if due := ex.deadline(t.cfg.Timeout); due > now {
			ex.due = due
			heap.Fix(&t.due, 0)
			continue
		}
		t.over(ex, now, emit)
	}
	t.sweepConns(now)
	t.shrink(now)
}

func (t *Table) over(ex *open, now int64, emit func(*trace.Exchange)) {
	news := (ex.reported == 0 || ex.last > ex.reported) && ex.worthTelling()
	if news && len(ex.arrived) == 0 && ex.reported == 0 {
		ex.reported = now
		ex.due = now + int64(late)
		heap.Fix(&t.due, ex.index)
		emit(t.emit(ex))
		return
	}
	heap.Remove(&t.due, ex.index)
	if news {
		emit(t.emitLast(ex))
	}
	t.forget(ex)
}

// Flush ends the table: it passes on what has a response or a drop to show. A
// query that still waits is no failure, only unfinished, and is counted as that.
func (t *Table) Flush(emit func(*trace.Exchange)) {
	for len(t.due) > 0 {
		ex := heap.Pop(&t.due).(*open)
		switch {
		case ex.reported != 0 && ex.last <= ex.reported, !ex.worthTelling():
		case len(ex.arrived) > 0 || ex.dropSeen:
			emit(t.emitLast(ex))
		default:
			t.stats.Unfinished++
		}
		t.forget(ex)
	}
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Open = len(t.due)
	return s
}

// forget takes an exchange out of the table.
func (t *Table) forget(ex *open) {
	ex.closed = true
	for _, k := range ex.keys {
		if t.open[k] == ex {
			delete(t.open, k)
		}
	}
	for _, d := range ex.fragmented {
		if t.datagrams[d].ex == ex {
			delete(t.datagrams, d)
		}
	}
	if ex.reusable() {
		t.reuse(ex)
	}
}
