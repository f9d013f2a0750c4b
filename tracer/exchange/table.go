// Package exchange is the second step of the tracer: it pairs packets, seen at many
// places, into queries and their responses, and says how far each message came.
//
// An exchange is what a client sent to a server: transport, the client's address and
// port, the server's address and port as the client addressed it, DNS ID and question.
// Translations are aliases of it (match.go). Its milestones are computed once, when it
// is passed on (milestones.go).
package exchange

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// Times of an exchange.
const (
	// linger is how long an answered exchange stays open for what may still come: the
	// response on its last devices, a drop at the client's socket, a duplicate.
	linger = 100 * time.Millisecond
	// transferLinger is the same for a zone transfer, whose messages come with pauses.
	transferLinger = time.Second
	// readLinger is the same for one whose response waits in the socket of its client.
	readLinger = 300 * time.Millisecond
	// neighbourWait is how long a packet waits for the link address of its next hop before
	// Linux drops it: three requests of a second each (mcast_solicit, retrans_time).
	neighbourWait = 3300 * time.Millisecond
	// grace is how long after its timeout a query without a response is passed on: a
	// client whose own timeout is the same asks again in the same exchange.
	grace = time.Second
	// late is how long an exchange that was passed on without a response is remembered:
	// CoreDNS gives up on its upstreams after 6 s, resolvers retry after 5 s from the
	// same port. What still comes makes a second, fuller record of it.
	late = 5 * time.Second
)

// Crossing is how long a query may have been under way before it is seen first,
// where its first sightings were lost.
const Crossing = 10 * time.Millisecond

// Defaults of a [Config].
const (
	DefaultTimeout  = 7 * time.Second // longer than glibc waits (5 s), and than CoreDNS tries its upstreams (6 s)
	DefaultMaxBytes = 22 << 20        // with those of package assemble, what is not accounted included, 64 MiB
)

// Bounds of one exchange: a loop must not eat the node's memory.
const (
	maxSightings = 256
	maxDrops     = 64
	maxRejected  = 16
	maxAliases   = 8 // addresses that one client, or one server, is known by
)

// maxWithKey bounds the exchanges with one key, with all of which each packet of one is
// compared: a resolver asks some servers with one ID from one socket. The oldest is evicted.
const maxWithKey = 64

// Names names what packets carry numbers of.
type Names interface {
	// Cgroup returns the path of a cgroup below the root of cgroup2, and the id of
	// the container that it is; empty where they are unknown.
	Cgroup(id uint64) (path, container string)
}

// Config of a Table. Wall converts the monotonic time of packets to UTC.
type Config struct {
	Ports    []uint16         // of servers; tells the client's end of a TCP connection
	Timeout  time.Duration    // 0: DefaultTimeout
	MaxBytes int              // of open exchanges, connections and fragments; 0: DefaultMaxBytes
	Observes capture.Observes // what the kernel shows of sockets
	Wall     func(mono int64) time.Time
	Names    Names  // nil: none
	Node     string // this one's name; empty: unknown
}

// Stats counts what a Table could not report as an exchange. All only grow,
// but for Open and Bytes.
type Stats struct {
	Open       int    // exchanges
	Bytes      int    // of exchanges, connections and fragments
	Evicted    uint64 // exchanges and connections removed early, because the table was full
	NotDNS     uint64 // packets on a DNS port that are no DNS message, or multicast DNS between equals
	Orphans    uint64 // responses, fragments and ICMP errors that belong to no open exchange, or to more than one
	Sightings  uint64 // sightings and drops that were not kept, because the exchange had too many
	Fragments  uint64 // of an exchange with too many, not counted to its datagrams
	Addresses  uint64 // of a client or a server that an exchange is not known by, because it had too many
	Unreadable uint64 // TCP segments whose place in the stream is unknown
	Unfinished uint64 // still waiting for a response at the end
	Discarded  uint64 // left out, because load shedding changed meanwhile
	NoConnect  uint64 // dropped packets that asked for a TCP connection
}

// Table holds the open exchanges. It is not safe for concurrent use and has no clock: its
// time is that of packets and Advance.
type Table struct {
	cfg              Config
	keys             chains
	aliases          map[key][]*open // by the other addresses of their clients
	sockets          chains
	alike            chains
	waiting          map[uint64]int // by pair: how many wait for a response
	due              agenda.Of[*open]
	age              age
	conns            map[connKey]*conn
	clients          map[socket]*conn // the last connection of a client's address
	datagrams        map[datagram]fragmented
	refused          map[*open]struct{} // open, and a response of theirs was rejected
	kin              chains
	kinFound         []*open           // memory of Kin
	sketches         []*trace.Exchange // likewise
	sketched         [maxKin]emitted   // likewise
	buffers          buffers
	owed             owed
	devices          devices
	endpoints        endpoints
	places           places
	sweep            int64
	searches         int
	evicted          []*trace.Exchange // because the table was full, until Advance
	bytes            int
	connBytes        int
	free             freelist.List[open]
	serial           uint32 // of the newest exchange
	peak             peak
	stats            Stats
	shedding         bool  // only a part of the lookups is reported
	thresholdChanged int64 // monotonic time of the last change; 0: never
}

// New returns an empty table.
func New(cfg Config) *Table {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	return &Table{
		cfg: cfg, keys: newChains(chainKey), aliases: map[key][]*open{}, sockets: newChains(chainSocket), alike: newChains(chainQuestion), waiting: map[uint64]int{}, conns: map[connKey]*conn{}, clients: map[socket]*conn{},
		datagrams: map[datagram]fragmented{}, refused: map[*open]struct{}{}, kin: newChains(chainKin), places: newPlaces(),
	}
}

// Packet takes the next packet; packets come in order of time.
func (t *Table) Packet(p *capture.Packet) {
	if p.Kind == capture.Drop && p.NotForHost {
		t.bystander(p)
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
	for t.bytes > t.cfg.MaxBytes && len(t.due) > 1 {
		t.evict(t.due[0].Item) // which would end first
	}
}

// datagram takes a UDP packet, or its first fragment.
func (t *Table) datagram(p *capture.Packet) {
	if amongEquals(p) {
		t.stats.NotDNS++
		return
	}
	held := t.buffers.within(p, waitsForCPU)
	h, err := parseHeader(p.Payload, held.question())
	m := message{header: h, body: p.Payload, size: p.PayloadLen, part: p.Fragment != nil, held: held}
	var ex *open
	switch {
	case err != nil:
		ex = t.unreadable(p, &m)
	case h.response():
		ex = t.response(p, &m)
	default:
		ex = t.query(p, &m, clientOf(p, false), serverOf(p, false))
	}
	if ex == nil {
		return
	}
	t.see(ex, p, m.response(), p.Fragment == nil)
	if p.Fragment != nil {
		t.firstFragment(ex, p, m.response())
	}
}

// amongEquals tells whether a packet is multicast DNS between two full implementations (RFC
// 6762, section 5.2): queries to the group, with responses to the group or none: no exchange,
// and silence means nothing. A simple resolver that asks from a port of its own (section
// 5.1) gets a unicast response.
func amongEquals(p *capture.Packet) bool {
	return p.Src.Port() == p.Dst.Port() && p.Dst.Addr().IsMulticast()
}

// add holds an exchange that has begun.
func (t *Table) add(ex *open) {
	t.age.begin(ex)
	t.kin.Join(ex.kinKey(), ex)
	t.due.Add(ex, ex.first+int64(t.cfg.Timeout))
	t.peak.open = max(t.peak.open, len(t.due))
	t.account(ex)
}

// evict passes on an exchange as it stands. What it waited for may still come, so its record
// says that something may be missing.
func (t *Table) evict(ex *open) {
	if t.reports(ex) {
		ex.lostEvents++
		t.evicted = append(t.evicted, t.emit(ex))
	}
	if ex.reported == 0 {
		t.stats.Evicted++
	}
	t.remove(ex)
}

// account keeps the bytes of an exchange that has grown.
func (t *Table) account(ex *open) {
	n := ex.bytes()
	t.bytes += n - ex.counted
	ex.counted = n
}

// Lost notes that events were lost between two times: an exchange that was open
// then may miss some. One that began right after may miss its beginning.
func (t *Table) Lost(events uint64, first, last int64) {
	for _, e := range t.due {
		if ex := e.Item; ex.first-int64(Crossing) <= last && first <= ex.deadline(t.cfg.Timeout) {
			ex.lostEvents += events
		}
	}
}

// Advance passes on every exchange that is over by now, which is on the clock of
// the packets. The receiver owns the exchange, but for its client and server, which others
// have as well. One that was passed on without a
// response is passed on again, with the same time, if something of it comes
// late; the later record replaces the earlier and says so.
func (t *Table) Advance(now int64, emit func(*trace.Exchange)) {
	for _, ex := range t.evicted {
		emit(ex)
	}
	clear(t.evicted)
	t.evicted = t.evicted[:0]
	for len(t.due) > 0 && t.due[0].At <= now {
		ex := t.due[0].Item
		// The heap is not touched by every packet; see whether it is still due.
		if due := t.ends(ex); due > now {
			t.look(ex, due)
			continue
		}
		t.over(ex, now, emit)
	}
	t.sweepConns(now)
	t.shrink(now)
}

// ends returns when an exchange is over, which depends on whether it was answered.
func (t *Table) ends(ex *open) int64 {
	due := ex.deadline(t.cfg.Timeout)
	switch {
	case !ex.responded || ex.ended || ex.reported != 0 && ex.lastQuery <= ex.reported:
		return due
	case !t.answered(ex):
		return max(due, ex.silent(t.cfg.Timeout))
	case t.unread(ex):
		due = max(due, ex.last+int64(readLinger))
	}
	return max(due, ex.stuck())
}

func (t *Table) over(ex *open, now int64, emit func(*trace.Exchange)) {
	if t.reports(ex) {
		r := t.emit(ex)
		emit(r)
		if r.Outcome != trace.OutcomeAnswered {
			t.waitsNoMore(ex)
			ex.reported, ex.final = now, ex.ended && ex.conn != nil && !ex.connects
			t.look(ex, now+int64(ex.remembered()))
			return
		}
	}
	t.remove(ex)
}

// Flush ends the table: it passes on what has a response or a drop to show. A
// query that still waits is no failure, only unfinished, and is counted as that.
func (t *Table) Flush(emit func(*trace.Exchange)) {
	for len(t.due) > 0 {
		ex := t.due[0].Item
		if t.reports(ex) {
			if len(ex.drops) > 0 || ex.ended || t.answered(ex) {
				emit(t.emit(ex))
			} else {
				t.stats.Unfinished++
			}
		}
		t.remove(ex)
	}
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Open, s.Bytes = len(t.due), t.bytes
	return s
}

// remove takes an exchange out of the table.
func (t *Table) remove(ex *open) {
	t.due.Remove(int(ex.index))
	t.bytes -= ex.counted
	ex.closed = true
	t.owed.note(ex)
	t.unindex(ex)
	t.age.end(ex)
	t.waitsNoMore(ex)
	t.kin.Leave(ex)
	delete(t.refused, ex)
	for _, d := range ex.fragmented {
		if t.datagrams[d].ex == ex {
			delete(t.datagrams, d)
		}
	}
	if ex.conn != nil && ex.conn.attempt == ex {
		ex.conn.attempt = nil
	}
	t.reclaim(ex)
}
