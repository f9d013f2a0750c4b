package assemble

import (
	"math"
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// question is what an upstream query and its attempt have in common. That of an attempt to
// open a TCP connection is empty.
type question struct{ name, qtype string }

// asked indexes by time all that is held of one question, so that one popular name costs no
// more than many names.
type asked struct {
	channels []*channel                  // in the order in which they began
	byServer map[netip.AddrPort]*channel // the same where they are many; nil: they are few
	callers  timeline[work]              // of a server that is seen and keeps no record, by when the query had arrived
	records  timeline[*lookup]           // of which only the server's record is known
	uses     int                         // of the question, by lookups and slots

	first  [1]*channel // memory of channels: most are asked of one server
	memory [1]channel
}

// work is what a server does for a lookup, until a time.
type work struct {
	of    *lookup
	until int64
}

// Bounds of the channels of one question: a client may ask ever new addresses for it, or try
// to connect to them.
const (
	// fewChannels are looked through for that to a server.
	fewChannels = 8
	// maxChannels is how many are looked at for upstream queries that no record names: a
	// server has some upstreams.
	maxChannels = 64
)

// channel is the queries of one question to one server address, and the attempts that
// they may be of.
type channel struct {
	server    netip.AddrPort
	used      bool // else it is the memory of none
	exchanges timeline[*lookup]
	slots     timeline[*slot] // of attempts that may have other exchanges than they were given
	final     timeline[*slot] // of those that have not
	longest   int64           // limit of a slot after its begin, at most; ns
}

// in returns where a question is indexed, for one use more.
func (a *Assembler) in(q question) *asked {
	at := a.questions[q]
	if at == nil {
		at = &asked{}
		at.channels = at.first[:0]
		a.questions[q] = at
	}
	at.uses++
	return at
}

// release ends a use.
func (a *Assembler) release(q question, at *asked) {
	if at.uses--; at.uses == 0 {
		delete(a.questions, q)
	}
}

// to returns the channel to a server.
func (q *asked) to(server netip.AddrPort) *channel {
	if q.byServer != nil {
		if c := q.byServer[server]; c != nil {
			return c
		}
	} else {
		for _, c := range q.channels {
			if c.server == server {
				return c
			}
		}
	}
	c := q.room()
	c.server, c.used = server, true
	q.channels = append(q.channels, c)
	switch {
	case q.byServer != nil:
		q.byServer[server] = c
	case len(q.channels) > fewChannels:
		q.byServer = map[netip.AddrPort]*channel{}
		for _, c := range q.channels {
			q.byServer[c.server] = c
		}
	}
	return c
}

// room returns memory for a channel.
func (q *asked) room() *channel {
	for i := range q.memory {
		if c := &q.memory[i]; !c.used {
			return c
		}
	}
	return new(channel)
}

// drop forgets a channel in which nothing is any more.
func (q *asked) drop(c *channel) {
	if len(c.exchanges)+len(c.slots)+len(c.final) > 0 {
		return
	}
	q.channels = without(q.channels, c)
	delete(q.byServer, c.server)
	if len(q.channels) <= fewChannels/2 {
		q.byServer = nil
	}
	*c = channel{}
}

// likely returns the channels that are looked at for upstream queries that no record names.
func (q *asked) likely() []*channel { return q.channels[:min(len(q.channels), maxChannels)] }

// position is where a lookup stands in the index.
type position struct {
	asked   *asked
	channel *channel // where it may be an attempt's exchange; nil: it is none
	record  bool     // in records
	caller  bool     // in callers
	at      int64    // of its exchange, or its record
	arrival int64    // in callers
}

// index adds a lookup; to change it, unindex it before and index it again after.
func (a *Assembler) index(l *lookup) {
	p := position{asked: a.in(l.question)}
	if ex := l.exchange; ex != nil {
		p.at = ex.Time.UnixNano()
		l.answered = answeredAt(ex)
		l.sender = senderOf(ex)
		l.stamp = stampOf(ex)
		if l.sender.seen {
			p.channel = p.asked.to(netip.AddrPortFrom(ex.ServerIP, ex.ServerPort))
			p.channel.exchanges.insert(p.at, l)
			if !l.stamp.SpanID.IsZero() {
				a.stamped[l.stamp.SpanID] = append(a.stamped[l.stamp.SpanID], l)
			}
		}
	} else if l.query != nil {
		p.record, p.at = true, l.query.Time.UnixNano()
		p.asked.records.insert(p.at, l)
	}
	l.server = a.serverOf(l)
	if !l.recorded() && l.server.placed && !died(l.serverSide()) {
		p.caller = true
		p.arrival, l.until = serverTime(l.serverSide())
		p.asked.callers.insert(p.arrival, work{l, l.until})
	}
	l.position = p
}

func (a *Assembler) unindex(l *lookup) {
	a.unindexExchange(l)
	p := l.position
	if p.asked == nil {
		return
	}
	if p.record {
		p.asked.records.remove(p.at, l)
	}
	if p.caller {
		p.asked.callers.remove(p.arrival, work{l, l.until})
	}
	l.position = position{}
	a.release(l.question, p.asked)
}

// unindexExchange makes the exchange of a lookup no attempt's any more.
func (a *Assembler) unindexExchange(l *lookup) {
	c := l.position.channel
	if c == nil {
		return
	}
	l.position.channel = nil
	c.exchanges.remove(l.position.at, l)
	l.position.asked.drop(c)
	span := l.stamp.SpanID
	if span.IsZero() {
		return
	}
	if rest := without(a.stamped[span], l); len(rest) > 0 {
		a.stamped[span] = rest
	} else {
		delete(a.stamped, span)
	}
}

// sender is who sent an exchange's query.
type sender struct {
	seen  bool // its query left a socket that was observed
	place trace.Place
	pid   int // 0: unknown
	ip    netip.Addr
}

func senderOf(ex *trace.Exchange) (s sender) {
	s.place, s.seen = ex.ClientPlace()
	s.ip = ex.ClientIP
	if ex.Client != nil {
		s.pid = ex.Client.PID
	}
	return s
}

// answeredAt returns when the response had arrived.
func answeredAt(ex *trace.Exchange) int64 {
	if ex.Duration == nil {
		return math.MaxInt64
	}
	return ex.Time.UnixNano() + int64(*ex.Duration)
}

// stampOf returns the TRACEPARENT that an exchange carried; zero if it had none.
func stampOf(ex *trace.Exchange) (t trace.Traceparent) {
	const id, span, end = len("00-"), len("00-") + 32 + len("-"), len("00-") + 32 + len("-") + 16
	if len(ex.Traceparent) < end {
		return t
	}
	if err := t.TraceID.UnmarshalText([]byte(ex.Traceparent[id : span-1])); err != nil {
		return trace.Traceparent{}
	}
	if err := t.SpanID.UnmarshalText([]byte(ex.Traceparent[span:end])); err != nil {
		t.SpanID = trace.SpanID{}
	}
	return t
}

// serverTime returns from when to when a server that keeps no record had the query:
// from its arrival until its response left, or for as long as a server may take.
func serverTime(ex *trace.Exchange) (from, until int64) {
	arrived, ok := ex.At(ex.Milestones.Query.Arrived)
	if !ok {
		arrived = ex.Time
	}
	left, ok := ex.At(ex.Milestones.Response.Left)
	if !ok {
		left = lastQuery(ex).Add(holdServer)
	}
	return arrived.UnixNano(), left.UnixNano()
}

// lastQuery returns when the query was last seen, with all its retransmissions.
func lastQuery(ex *trace.Exchange) time.Time {
	if ex.Transmissions > 1 {
		if i := ex.Path.Last(trace.MessageQuery, math.MaxInt64); i >= 0 {
			return ex.Time.Add(ex.Path.Offset(i).Duration())
		}
	}
	for _, m := range [...]trace.Milestone{ex.Milestones.Query.Read, ex.Milestones.Query.Arrived} {
		if at, ok := ex.At(m); ok {
			return at
		}
	}
	if i := ex.Path.Last(trace.MessageQuery, math.MaxInt64); i >= 0 {
		return ex.Time.Add(ex.Path.Offset(i).Duration())
	}
	return ex.Time
}
