package assemble

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// slack is how far the clock of a server's process and that of its kernel may disagree
// about one moment, scheduling between the two included.
const slack = int64(500 * time.Microsecond)

// slot is an attempt of a server's record, and the exchanges that were found to be it:
// more than one where the server asked again over TCP, or on another connection.
type slot struct {
	of       *lookup
	record   *trace.Query // nil: of a refresh
	at       *trace.Attempt
	question question // empty: it is for the attempt's attempts to connect
	asked    *asked   // where it is indexed; nil: nowhere, its address is not one
	channel  *channel
	begin    int64 // ns since 1970
	limit    int64 // when the attempt was over, at the latest
	span     trace.SpanID

	got       []*lookup // in order of time
	inner     *lookup   // the record behind it, of which no packets were seen (loopback.go); nil: none
	exact     bool      // got can be nobody else's
	contested bool      // another that is over could have had what it gets
	final     bool      // got does not change any more
	from      int64     // between these times is what it could have instead
	until     int64
}

// addSlots makes the slots of a record of l: of its query, or of its refresh if record
// is nil.
func (a *Assembler) addSlots(l *lookup, record *trace.Query) {
	start, attempts, name, qtype := attemptsOf(l, record)
	for i := range attempts {
		at := &attempts[i]
		q := question{name, qtype}
		if at.QName != "" {
			q.name = at.QName
		}
		if at.QType != "" {
			q.qtype = at.QType
		}
		s := &slot{of: l, record: record, at: at, question: q, begin: start.UnixNano() + int64(at.Start)}
		s.limit = limitOf(s, attempts[i+1:])
		l.slots = append(l.slots, s)
		a.indexSlot(s)
		if record != nil && record.Stamped {
			s.span = trace.NewSpanID(record.TraceID, record.SpanID, trace.RoleAttempt, at.Attempt)
			a.spans[s.span] = s
		}
		if s.asked != nil && at.Outcome != trace.OutcomeOK {
			// What it died of may be a connection on which nothing was asked.
			dial := &slot{of: l, record: record, at: at, begin: s.begin, limit: s.limit}
			l.slots = append(l.slots, dial)
			a.indexSlot(dial)
		}
	}
}

// attemptsOf returns what a record says of upstream queries, the time from which their
// starts count, and the question of those that name none.
func attemptsOf(l *lookup, record *trace.Query) (start time.Time, attempts []trace.Attempt, name, qtype string) {
	if record != nil {
		return record.Time, record.Upstreams, record.QName, record.QType
	}
	r := l.refresh
	return r.Time, r.Upstreams, r.QName, r.QType
}

// limitOf returns when an attempt was over, at the latest; later are those after it.
func limitOf(s *slot, later []trace.Attempt) int64 {
	if s.at.Duration != nil {
		return s.begin + int64(*s.at.Duration)
	}
	for i := range later {
		if next := &later[i]; next.Address == s.at.Address && next.QName == s.at.QName && next.QType == s.at.QType {
			return s.begin + int64(next.Start-s.at.Start)
		}
	}
	return s.begin + int64(holdServer)
}

func (a *Assembler) indexSlot(s *slot) {
	addr, err := netip.ParseAddrPort(s.at.Address)
	if err != nil {
		return // the grpc plugin does not always report it
	}
	s.asked = a.in(s.question)
	s.channel = s.asked.to(addr)
	s.channel.slots.insert(s.begin, s)
	s.channel.longest = max(s.channel.longest, s.limit-s.begin)
}

func (a *Assembler) unindexSlot(s *slot) {
	if s.asked != nil {
		s.timeline().remove(s.begin, s)
		s.asked.drop(s.channel)
		a.release(s.question, s.asked)
		s.asked, s.channel = nil, nil
	}
	if !s.span.IsZero() && a.spans[s.span] == s {
		delete(a.spans, s.span)
	}
}

// timeline returns where the slot is indexed.
func (s *slot) timeline() *timeline[*slot] {
	if s.final {
		return &s.channel.final
	}
	return &s.channel.slots
}

// dials tells whether the slot is for attempts to connect.
func (s *slot) dials() bool { return s.question == question{} }

// give makes an exchange one of the slot's.
func (s *slot) give(x *lookup, exact bool) {
	i := len(s.got)
	s.got = append(s.got, x)
	for ; i > 0 && s.got[i-1].position.at > x.position.at; i-- {
		s.got[i], s.got[i-1] = s.got[i-1], s.got[i]
	}
	s.exact = exact && (s.exact || len(s.got) == 1)
	x.slot = s
}

// reset takes back what the slot was given.
func (s *slot) reset() {
	for _, x := range s.got {
		x.slot = nil
	}
	s.got, s.exact = s.got[:0], false
}

// lose takes an exchange from the slot that has it.
func (x *lookup) lose() {
	if s := x.slot; s != nil {
		s.got = without(s.got, x)
		x.slot = nil
		if s.inner == x {
			s.inner = nil
		}
	}
}

// feasible tells whether an exchange may be of an attempt: sent by that server while
// the attempt lasted, with its stamp if it has one.
func (a *Assembler) feasible(s *slot, x *lookup) bool {
	at := x.position.at
	if at < s.begin-slack || at > s.limit+slack || x == s.of || s.waited(at) {
		return false
	}
	if in := s.of.serverSide(); in != nil && at <= in.Time.UnixNano() {
		return false // before the query that it would be for
	}
	return a.servers.sent(&s.of.server, &x.sender) && a.stampFits(s, x)
}

// waited tells whether an attempt that ended at its timeout surely waited at a time: what
// it waited for in vain it had sent before its last moment.
func (s *slot) waited(at int64) bool {
	return s.at.Outcome == trace.OutcomeTimeout && s.at.Duration != nil && int64(*s.at.Duration) > 4*slack && at > s.limit-slack
}

func (a *Assembler) stampFits(s *slot, x *lookup) bool {
	switch {
	case x.stamp.TraceID.IsZero():
		return true
	case s.record == nil:
		return trace.SameLookup(x.stamp.TraceID, s.of.refresh.TraceID)
	case !s.record.Stamped || !trace.SameLookup(x.stamp.TraceID, s.record.TraceID):
		return false
	}
	named := a.spans[x.stamp.SpanID]
	return named == nil || named == s
}

// drift is how far the clock of a process and that of its kernel are apart where nothing
// is scheduled between the two: both are read within an attempt.
const drift = int64(50 * time.Microsecond)

// lasts tells whether an exchange was sent during the attempt.
func (s *slot) lasts(x *lookup) bool {
	return x.position.at >= s.begin-drift && x.position.at <= s.limit+drift
}

// agrees tells whether an exchange ended as the attempt did.
func (s *slot) agrees(x *lookup) bool {
	switch s.at.Outcome {
	case trace.OutcomeOK:
		return x.answered <= s.limit+slack || x.spoiledBefore(s.limit+slack)
	case "":
		return true // CoreDNS does not report it
	case trace.OutcomeFailed:
		if code := x.exchange.RCode; code != "" && code != "NOERROR" && x.answered <= s.limit+slack {
			return true // an answer that it went on from (`failover`)
		}
	}
	// What came later is of the attempt nevertheless, and so is what it could not take.
	return x.answered > s.limit-slack || len(x.exchange.Rejected) > 0
}

// spoiledBefore tells whether a response came until a time that its server could not take and
// ended its attempt: CoreDNS makes FORMERR of another question's, and an answer that is
// truncated of one that it cannot read. For one with another ID, or from elsewhere, it waits on.
func (x *lookup) spoiledBefore(limit int64) bool {
	return slices.ContainsFunc(x.exchange.Rejected, func(r trace.Rejection) bool {
		ends := r.Why == trace.RejectedMalformed || r.Why == trace.RejectedIncomplete || r.Why == trace.RejectedQuestion
		return ends && x.position.at+int64(r.Offset) <= limit
	})
}

// follows tells whether a server asks y in one attempt after x: over TCP after an answer
// that was truncated, or on another connection after one that it found closed.
func follows(x, y *lookup) bool {
	switch {
	case y.exchange.Protocol != "tcp" || x.position.at > y.position.at:
		return false
	case x.exchange.Protocol == "tcp":
		return x.closed()
	}
	return x.exchange.Truncated && x.answered <= y.position.at // on one clock, the kernel's
}

// closed tells whether an exchange may be one on a connection that was closed before
// the query came.
func (x *lookup) closed() bool {
	ex := x.exchange
	return ex.Protocol == "tcp" && !ex.Connects() && ex.Duration == nil && len(ex.Rejected) == 0
}

// over returns when a server that asks again knew that an exchange was no use.
func (x *lookup) over() int64 {
	switch ex := x.exchange; {
	case ex.Reset != nil:
		return x.position.at + int64(ex.Reset.Offset)
	case ex.Duration != nil:
		return x.answered
	}
	return x.position.at
}

// atOnce is how soon a server asks again.
const atOnce = int64(50 * time.Millisecond)

// leadsTo tells whether a server very likely asked y because of x.
func leadsTo(x, y *lookup) bool {
	useless := x.exchange.Truncated || x.exchange.Reset != nil
	return useless && follows(x, y) && y.position.at-x.over() >= -slack && y.position.at-x.over() <= atOnce
}

// gap returns how long after one of two exchanges of an attempt the other was sent.
func gap(x, y *lookup) int64 {
	if x.position.at > y.position.at {
		x, y = y, x
	}
	return max(0, y.position.at-x.over())
}

// gap returns the shortest gap between an exchange and those of the slot, which are of one
// attempt.
func (s *slot) gap(x *lookup) int64 {
	least := int64(math.MaxInt64)
	for _, y := range s.got {
		least = min(least, gap(x, y))
	}
	return least
}

// ofOne tells whether two exchanges can be of one attempt.
func ofOne(x, y *lookup) bool { return follows(x, y) || follows(y, x) }

// takes tells whether an exchange can be of the attempt beside those that it has.
func (s *slot) takes(x *lookup) bool {
	if len(s.got) > 0 && !s.lasts(x) {
		return false
	}
	for _, y := range s.got {
		if !ofOne(x, y) {
			return false
		}
	}
	return true
}
