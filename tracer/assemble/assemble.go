// Package assemble is the third step of the tracer: it joins exchanges and the
// plugin's query and refresh records into traces, and finds which traces are of
// one getaddrinfo call.
//
// Attempts of a server and its upstream exchanges are matched in order, one to one:
// by the stamp that an exchange carried; else by what the attempt asked, whom, and
// when. A match without alternative is exact; one of several possible ones is inferred
// from the order; the trace says of the rest that it was not observed.
//
// It is a function of the records, without sockets and without a clock of its own, so
// that the live tracer and a file of records give the same traces. A live tracer
// also says what is under way ([Open]), so that no trace has to be reported twice.
package assemble

import (
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// DefaultMaxBytes bounds the memory of lookups that are held, and of those that were
// passed on and may be completed. A lookup has some two kilobytes.
const DefaultMaxBytes = 22 << 20

// Config of an Assembler.
type Config struct {
	MaxBytes    int           // of memory, about; 0: DefaultMaxBytes
	Timeout     time.Duration // after which exchanges are unanswered; 0: 7 s
	Limitations Limitations
	Open        Open    // what is not over; nil: nobody knows
	Sockets     Sockets // nil: nobody knows
}

// Sockets knows which sockets take queries.
type Sockets interface {
	// Holds tells whether a process has one open at a port.
	Holds(pid int, port uint16) bool
}

// maxOfSender bounds the records of one query that a process sent and that wait for their
// packets: a client sends its query some five times.
const maxOfSender = 16

// Open tells what is under way: exchanges that will be passed on when they are over. Without
// it only the records that came are known.
type Open interface {
	// UnderWay tells whether the exchange of a record is under way.
	UnderWay(q *trace.Query) bool
	// Server returns the process, and the cgroup, that read the query of a record; zero
	// values where packets did not show them, or it is not under way.
	Server(q *trace.Query) (pid int, cgroup string)
	// Rejecting tells whether an exchange is under way that began between two times, asks a
	// server a question, and got only responses that its client could not take.
	Rejecting(server netip.AddrPort, qname, qtype string, from, until time.Time) bool
	// Asking tells whether a query for a question is under way that was sent from a place
	// between two times, by that process; pid 0: any.
	Asking(place trace.Place, pid int, qname, qtype string, from, until time.Time) bool
	// Kin returns what may be of one call with an exchange, begun between two times: what its
	// client asks for with the same first label and, where its answer was truncated, the
	// client's attempts to connect to its server.
	Kin(of *trace.Exchange, from, until time.Time) []*trace.Exchange
	// AllReported tells whether the packets of all lookups were reported since a time.
	AllReported(since time.Time) bool
}

// Limitations is what this node's kernel does not report, each as the gap of a trace that it
// concerns; empty: no limitation.
type Limitations struct {
	Process   string // which process sent what left a socket of this node
	Reason    string // why a packet was dropped
	Unsampled string // the packets of lookups that are not in the sample
}

// Stats counts what could not be joined as it should. All only grow, but for
// Pending and Bytes.
type Stats struct {
	Pending    int    // lookups held
	Bytes      int    // of memory, about, for them and for what was passed on
	Evicted    uint64 // passed on early, as they stood, because there was no room for more
	Duplicates uint64 // records that came twice
	Foreign    uint64 // records that are refused: their sender is not the server
	Unverified uint64 // records that are shown alone: whether their sender is the server is unknown
}

// Assembler joins records into traces. It is not safe for concurrent use. It keeps the
// records that it is given, also after it passed them on: they must not change.
type Assembler struct {
	cfg       Config
	now       time.Time
	due       agenda.Of[*lookup] // what is held
	held      queue              // the same, in the order in which it came, but for
	strangers queue              // records of senders that are not known to be servers
	flows     flows
	questions map[question]*asked
	stamped   map[trace.SpanID][]*lookup // exchanges by the span id that they carried
	spans     map[trace.SpanID]*slot     // attempts by the span id that they sent
	servers   *servers
	calls     *calls
	region    region
	trace     trace.Trace   // that was finished last
	early     []trace.Trace // evicted, until Advance
	flushed   time.Time     // up to when what happened is known; zero: up to now
	began     time.Time     // of the first record
	recorded  bool          // a server wrote records
	// How many answered lookups had no record after linger, while there were none.
	unrecorded int
	// Passed on: those whose server may be at work still, those of which nothing more is
	// expected, and others.
	passedOpen, passedWhole, passedOther queue
	stats                                Stats
	most                                 int       // held since shrink last looked
	shrunk                               time.Time // when it last did
}

// New returns an empty Assembler.
func New(cfg Config) *Assembler {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 7 * time.Second
	}
	return &Assembler{
		cfg: cfg, flows: newFlows(), questions: map[question]*asked{}, stamped: map[trace.SpanID][]*lookup{},
		spans: map[trace.SpanID]*slot{}, servers: newServers(), calls: newCalls(),
	}
}

// Add adds a record, an exchange of this node or any record of a file, and owns it from then
// on. Order does not matter as long as a record is not later than the holds allow (hold.go).
// It advances the time to that of the record: a live tracer passes records that a server
// sent to Report.
func (a *Assembler) Add(r trace.Record) {
	switch r := r.(type) {
	case *trace.Exchange:
		a.advanceTo(end(r.Time, r.Duration))
		a.addExchange(r)
	case *trace.Query:
		a.advanceTo(end(r.Time, r.Duration))
		a.recorded = true
		a.addQuery(r, nil)
	case *trace.Refresh:
		a.advanceTo(r.Time.Add(refreshTime(r)))
		a.addRefresh(r, nil)
	}
	a.bound()
}

// Report adds a query or refresh record that a process of this node sent just now, and owns
// it from then on. It is believed if packets show that process as the server. It does not
// advance the time.
func (a *Assembler) Report(r trace.Record, from peer.Process) {
	switch r := r.(type) {
	case *trace.Query:
		r.Unverified = false // that is ours to say
		a.addQuery(r, &from)
	case *trace.Refresh:
		a.addRefresh(r, &from)
	}
	a.bound()
}

func (a *Assembler) advanceTo(now time.Time) {
	if a.began.IsZero() {
		a.began = now
	}
	if now.After(a.now) {
		a.now = now
	}
}

func (a *Assembler) addExchange(ex *trace.Exchange) {
	if a.servers.learn(ex) {
		a.admitWaiting()
	}
	for l := range a.flows.of(ex.Flow) {
		if old := l.written(ex); old != nil {
			a.addAgain(l, old, ex)
			return
		}
	}
	ex = a.behindProxy(ex)
	l := a.halfOf(ex)
	if l == nil {
		l = &lookup{exchange: ex, question: question{ex.QName, ex.QType}, flow: ex.Flow, again: ex.Replaces, lost: ex.Replaces}
		a.hold(l)
	}
	a.remember(l)
	a.takeRecords(l)
}

// addAgain adds another record of an exchange: a complete one after more of it was seen, or a
// duplicate.
func (a *Assembler) addAgain(l *lookup, old **trace.Exchange, ex *trace.Exchange) {
	if !moreThan(ex, *old) {
		a.stats.Duplicates++
		return
	}
	// The earlier one has the better names: pods and endpoints go away.
	ex.Client, ex.Server = sameEnd((*old).Client, ex.Client), sameEnd((*old).Server, ex.Server)
	a.change(l, func() { *old = ex })
	a.remember(l)
	a.takeRecords(l)
	a.revive(l.root())
}

// behindProxy handles an exchange that a transparent proxy sent on with the addresses of its
// client: the record that was matched with the client's exchange belongs to it. It returns
// the exchange that is left.
func (a *Assembler) behindProxy(ex *trace.Exchange) *trace.Exchange {
	for l := range a.flows.of(ex.Flow) {
		if l.query == nil || l.exchange == nil || l.serverExchange != nil || l.heapIndex < 0 || l.matched != "" || !sentOn(l.exchange, ex) ||
			a.fitsBy(l.query, l.from, ex) != own {
			continue
		}
		front := l.exchange
		a.change(l, func() { l.exchange = ex })
		a.servers.records(ex, l.query)
		return front
	}
	return ex
}

// sentOn tells whether the server of one exchange, in another place than its client, sent
// the other.
func sentOn(front, behind *trace.Exchange) bool {
	client, _ := front.ClientPlace()
	proxy, known := front.ServerPlace()
	sender, seen := behind.ClientPlace()
	return known && seen && proxy == sender && proxy != client && behind.Time.After(front.Time)
}

// halfOf adds an exchange to the lookup of which another node saw the other side, or whose
// record is known; nil if there is none.
func (a *Assembler) halfOf(ex *trace.Exchange) *lookup {
	var side, record *lookup
	for l := range a.flows.of(ex.Flow) {
		switch {
		case l.exchange != nil && l.serverExchange == nil && twoSides(l.exchange, ex):
			if fit := sameServer(l.exchange, ex); fit == fits || fit == mayFit && side == nil {
				side = l
			}
		case l.exchange == nil && l.query != nil && record == nil && a.fitsBy(l.query, l.from, ex) == own:
			record = l
		}
	}
	switch {
	case side != nil:
		a.change(side, func() { side.setSides(ex) })
		a.revive(side.root())
		return side
	case record != nil:
		a.change(record, func() { record.exchange = ex })
		a.join(record)
		a.revive(record.root())
	}
	return record
}

// takeRecords gives l the records of its query that wait for it.
func (a *Assembler) takeRecords(l *lookup) {
	for again := true; again; {
		again = false
		for half := range a.flows.of(l.flow) {
			if half != l && half.exchange == nil && half.query != nil && a.misses(l, half.query, half.from) {
				a.unite(l, half, "")
				again = true // the list has changed
				break
			}
		}
	}
}

// misses tells whether a record is of l's query, of which fewer came than it was sent.
func (a *Assembler) misses(l *lookup, q *trace.Query, from *peer.Process) bool {
	return a.fits(q, from, l) == own && len(l.records) < max(1, l.serverSide().Transmissions, l.exchange.Transmissions)
}

// fits tells whether a record of the same flow is of l's query, by the process of its server.
func (a *Assembler) fits(q *trace.Query, from *peer.Process, l *lookup) ownership {
	if l.exchange == nil {
		return foreign
	}
	return a.fitsBy(q, from, l.serverSide())
}

func (a *Assembler) fitsBy(q *trace.Query, from *peer.Process, ex *trace.Exchange) ownership {
	if !belongs(ex, q) || fitOf(ex, q) != fits {
		return foreign
	}
	return a.servers.owner(from, q, ex)
}

// remember keeps a client's lookup, to find the others of its call. Upstream queries of
// servers are of no call.
func (a *Assembler) remember(l *lookup) {
	if !a.servers.sends(&l.sender) {
		l.caller = a.calls.add(l.exchange, a.now)
	}
}

func (a *Assembler) addQuery(q *trace.Query, from *peer.Process) {
	var of *lookup
	others := 0
	for l := range a.flows.of(q.Flow) {
		if len(l.records) > 0 && sameSender(l.from, from) {
			others += len(l.records)
			if slices.ContainsFunc(l.records, func(known *trace.Query) bool { return known.Time.Equal(q.Time) && known.SpanID == q.SpanID }) {
				a.stats.Duplicates++
				return
			}
		}
		if a.misses(l, q, from) && (of == nil || of.exchange.Time.Before(l.exchange.Time)) {
			of = l // the later, as the client used its port and ID again
		}
	}
	switch {
	case of != nil:
		a.change(of, func() { a.addRecord(of, q, from) })
		a.revive(of.root())
	case from != nil && others >= maxOfSender:
		a.stats.Foreign++
	default:
		l := &lookup{question: question{q.QName, q.QType}, flow: q.Flow}
		a.addRecord(l, q, from)
		a.hold(l)
	}
}

func (a *Assembler) addRefresh(r *trace.Refresh, from *peer.Process) {
	others := 0
	for l := range a.flows.of(r.Flow) {
		if l.refresh == nil || !sameSender(l.from, from) {
			continue
		}
		if others++; l.refresh.Time.Equal(r.Time) {
			a.stats.Duplicates++
			return
		}
	}
	if from != nil && others >= maxOfSender {
		a.stats.Foreign++
		return
	}
	l := &lookup{refresh: r, from: from, question: question{r.QName, r.QType}, flow: r.Flow}
	if a.believes(l) {
		a.admit(l)
	}
	a.hold(l)
}

// change alters a lookup.
func (a *Assembler) change(l *lookup, alter func()) {
	if s := l.slot; s != nil && l.parent == nil {
		s.reopen()
		l.lose()
	}
	a.unindex(l)
	alter()
	a.index(l)
	if l.heapIndex < 0 {
		a.unindexExchange(l) // what was passed on is no upstream query that is to be found
		if l.query != nil {
			for _, x := range l.inferred {
				a.unindex(x)
				a.index(x) // it may be one of the attempts
			}
		}
		return
	}
	l.resize(l.bytes())
	a.await(l, a.waits(l))
}

// belongs tells whether a query record is of an exchange with the same flow: a flow recurs
// only when the client reuses its port and ID. The query starts after the first packet, or
// after a retransmission of it.
func belongs(ex *trace.Exchange, q *trace.Query) bool {
	const clocks = 50 * time.Millisecond // of two nodes, synchronized as nodes are
	queued := 6 * time.Second            // an overloaded server reads its socket late
	if ex.Protocol == "tcp" {
		queued = holdDial // and only when it has answered what came before on the connection
	}
	if q.Time.Sub(ex.Time) < -clocks {
		return false
	}
	return q.Time.Sub(lastQuery(ex)) <= queued+clocks
}

// hold keeps a lookup until its parts have come.
func (a *Assembler) hold(l *lookup) {
	l.added = a.now
	l.size = l.bytes()
	a.index(l)
	if l.recorded() && !l.admitted {
		a.strangers.push(l)
	} else {
		a.held.push(l)
	}
	l.heapIndex = -1
	a.await(l, a.waits(l))
	a.most = max(a.most, len(a.due))
	a.flows.add(l)
}

// Advance returns the traces that are complete, or no longer wait for more, at the given
// time. The caller must not change what they refer to.
func (a *Assembler) Advance(now time.Time) (done []*trace.Trace) {
	a.Pass(now, func(t *trace.Trace) {
		c := *t
		done = append(done, &c)
	})
	return done
}

// Pass does what Advance does, and gives each trace to a function, which must not keep it: its
// memory is reused. The function must not call the Assembler.
func (a *Assembler) Pass(now time.Time, to func(*trace.Trace)) {
	a.advanceTo(now)
	early := a.early
	a.early = nil
	for i := range early {
		to(&early[i])
	}
	for len(a.due) > 0 && !a.due[0].Item.due.After(a.now) {
		l := a.due[0].Item
		if at := a.readyAt(l); at.After(a.now) {
			a.await(l, at)
			continue
		}
		if a.repeats(l) {
			continue
		}
		if a.finish(l) {
			to(&a.trace)
		}
	}
	a.expire()
	a.shrink()
}

// Flush returns everything that is held, as it stands.
func (a *Assembler) Flush() []*trace.Trace {
	var done []*trace.Trace
	a.flushed = a.now
	// As if the time of each had come: an upstream query that may be claimed waits for
	// its claimants, as it would have.
	for len(a.due) > 0 || len(a.early) > 0 {
		next := a.now
		if len(a.due) > 0 {
			next = a.due[0].Item.due
		}
		done = append(done, a.Advance(next)...)
	}
	return done
}

// Stats returns the counters.
func (a *Assembler) Stats() Stats {
	s := a.stats
	s.Pending, s.Bytes = len(a.due), a.held.size+a.strangers.size+a.passedSize()
	return s
}

// finish makes the trace of a lookup with its upstream exchanges, and stops holding them. It
// returns false for a record that is not believed.
func (a *Assembler) finish(l *lookup) bool {
	a.reunite(l)
	a.takeClaim(l)
	a.forget(l)
	l.lose()
	if a.foreign(l) {
		return false
	}
	a.gather(l, 0)
	a.build(l)
	a.pass(l)
	return true
}

// forget holds a lookup no longer.
func (a *Assembler) forget(l *lookup) {
	if l.heapIndex >= 0 {
		a.due.Remove(l.heapIndex)
	}
	l.remove()
	a.unindexExchange(l)
}
