package diagnose

import (
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// Bounds of what is remembered: some six megabytes.
const (
	maxUpstreams = 512
	maxFailures  = 1024
	maxHits      = 1024
	maxClients   = 4096
	maxLookups   = 8192
	// Longer than a lookup is held until it is complete, and than a client waits
	// before it tries again.
	rememberFor = 20 * time.Second
)

// memory is what the rules know of earlier traces.
type memory struct {
	upstreams map[string]*upstreamSeen // by address
	failures  map[failureKey]*failure  // that a server may have cached
	hits      map[string]time.Time     // by name, the latest answer out of a cache
	suffixes  map[suffixKey]*suffixSeen
	clients   map[clientKey]*client    // who asks
	lookups   map[lookupKey]*namesakes // of one client and name
	calls     map[trace.TraceID]*call
	order     []*seen // oldest first, from head on
	unused    []*seen // forgotten, to be used again
	ended     freelist.List[call]
	head      int
	room      int // lookups that the maps have held
	now       time.Time
}

// clientKey is who asks: the pod's address, whatever its process.
type clientKey struct {
	addr  netip.Addr
	place trace.Place
}

type lookupKey struct {
	client clientKey
	name   string
}

// seen is what rules need of one earlier lookup.
type seen struct {
	key       lookupKey
	call      trace.TraceID
	of        *call // in memory's calls, by that
	id        trace.TraceID
	qtype     string
	protocol  string
	server    netip.Addr
	port      uint16
	dnsID     uint16
	start     time.Time
	end       time.Time
	rcode     string
	outcome   string
	answered  bool
	truncated bool
	bufsize   int
	size      int
	records   int    // in the answer; -1: unknown
	address   string // the first in it
	queryDrop bool   // a query of it was dropped
	// The lookup that told that this one was truncated and asked again over TCP, or is that; zero:
	// none did.
	retry trace.TraceID
	// The upstream that answered it, and not with an error; empty: none is known.
	answeredBy string
	namesakes  *namesakes // in memory's lookups
}

// namesakes are the lookups of one client and name.
type namesakes struct {
	list  []*seen
	alone [1]*seen // room for it
}

// of returns the lookups of a client and name.
func (m *memory) of(k lookupKey) []*seen {
	if a := m.lookups[k]; a != nil {
		return a.list
	}
	return nil
}

// call is what is remembered of the lookups of one resolution.
type call struct {
	lookups []*seen
	alone   [1]*seen // room for it: most are one lookup
	// The lookup that told that it cost too many; zero: none did.
	costs trace.TraceID
	// The one that told that what it got contradicts itself; zero: none did.
	contradicts trace.TraceID
	// The one that told that a suffix of a search list stood before the name itself.
	shadowed trace.TraceID
}

func newMemory() *memory {
	return &memory{
		upstreams: map[string]*upstreamSeen{}, failures: map[failureKey]*failure{}, hits: map[string]time.Time{}, suffixes: map[suffixKey]*suffixSeen{}, clients: map[clientKey]*client{},
		lookups: map[lookupKey]*namesakes{}, calls: map[trace.TraceID]*call{},
	}
}

// clientOf returns who asks; the namespace only where the client is observed.
func clientOf(ex *trace.Exchange) clientKey {
	place, _ := ex.ClientPlace()
	return clientKey{ex.ClientIP, place}
}

// callID names the call that a lookup is of: the first lookup of a call may have
// been passed on before it was known to be one, and its trace id is the call's.
func callID(t *trace.Trace) trace.TraceID {
	if t.Resolution != "" {
		if id, err := trace.ParseTraceID(t.Resolution); err == nil {
			return id
		}
	}
	return t.Exchange.TraceID
}

// add remembers a client's lookup.
func (m *memory) add(t *trace.Trace) {
	ex := t.Exchange
	if ex == nil {
		return
	}
	if t.Replaces && m.replace(t, ex) {
		return
	}
	s := m.fresh()
	s.fill(t, ex)
	if s.end.After(m.now) {
		m.now = s.end
	}
	m.expire()
	m.order = append(m.order, s)
	m.room = max(m.room, len(m.order)-m.head)
	if s.namesakes = m.lookups[s.key]; s.namesakes == nil {
		s.namesakes = &namesakes{}
		s.namesakes.list = s.namesakes.alone[:0]
		m.lookups[s.key] = s.namesakes
	}
	s.namesakes.list = append(s.namesakes.list, s)
	s.of = m.callOf(s.call)
	s.of.lookups = append(s.of.lookups, s)
}

// callOf returns what is remembered of a call, to which a lookup is added then.
func (m *memory) callOf(id trace.TraceID) *call {
	c := m.calls[id]
	if c == nil {
		c = m.ended.Get()
		*c = call{}
		c.lookups = c.alone[:0]
		m.calls[id] = c
	}
	return c
}

// replace puts all of a lookup where what was reported of it before is remembered; false
// if that is forgotten.
func (m *memory) replace(t *trace.Trace, ex *trace.Exchange) bool {
	s := m.own(ex)
	if s == nil {
		return false
	}
	before := *s
	s.fill(t, ex)
	s.call, s.of, s.namesakes, s.retry = before.call, before.of, before.namesakes, before.retry
	return true
}

// own returns what was reported of a lookup before; nil if that is forgotten.
func (m *memory) own(ex *trace.Exchange) *seen {
	for _, s := range m.of(lookupKey{clientOf(ex), ex.QName}) {
		if s.id == ex.TraceID && s.start.Equal(ex.Time) {
			return s
		}
	}
	return nil
}

// maxUnused is how many lookups are kept to be used again: what a round brings.
const maxUnused = 512

// fresh returns memory for a lookup.
func (m *memory) fresh() *seen {
	n := len(m.unused)
	if n == 0 {
		return &seen{}
	}
	s := m.unused[n-1]
	m.unused = m.unused[:n-1]
	return s
}

func newSeen(t *trace.Trace, ex *trace.Exchange) *seen {
	s := &seen{}
	s.fill(t, ex)
	return s
}

func (s *seen) fill(t *trace.Trace, ex *trace.Exchange) {
	*s = seen{
		key: lookupKey{clientOf(ex), ex.QName}, call: callID(t), id: ex.TraceID, qtype: ex.QType, protocol: ex.Protocol, server: ex.ServerIP,
		port: ex.ClientPort, dnsID: ex.ID, start: ex.Time, end: ex.Time, rcode: ex.RCode,
		outcome: ex.Outcome, answered: ex.Outcome == trace.OutcomeAnswered, truncated: ex.Truncated && !cutByServer(t), bufsize: ex.BufSize,
		records:   -1,
		queryDrop: slices.ContainsFunc(ex.Drops, func(d trace.Drop) bool { return d.Message == trace.MessageQuery }),
	}
	if ex.Duration != nil {
		s.end = ex.Time.Add(ex.Duration.Duration())
	}
	if n := len(t.Upstreams); n > 0 && s.answered && !errorCode(ex.RCode) {
		if u := &t.Upstreams[n-1]; !failedUpstream(t, u) {
			s.answeredBy = address(u)
		}
	}
	if ex.ResponseSize != nil {
		s.size = *ex.ResponseSize
	}
	if i := slices.IndexFunc(ex.Answers, func(a trace.Answer) bool { return a.Type == ex.QType }); i >= 0 && ex.QType != "CNAME" {
		s.address = ex.Answers[i].Value
	}
	if ex.AnswerCount != nil {
		s.records = *ex.AnswerCount
	}
}

// failedUpstream tells whether a query to an upstream is not known to have been answered
// without an error.
func failedUpstream(t *trace.Trace, u *trace.Upstream) bool {
	o, known := outcomeOf(t, u)
	return !known || o.failed
}

// cutByServer tells whether a truncated answer is what CoreDNS made of a response that it
// could not read: nothing was too large.
func cutByServer(t *trace.Trace) bool {
	return slices.ContainsFunc(t.Upstreams, func(u trace.Upstream) bool { return rejectedOf(&u) != nil })
}

// expire forgets what is old, or too much.
func (m *memory) expire() {
	for m.head < len(m.order) && (m.now.Sub(m.order[m.head].start) > rememberFor || len(m.order)-m.head >= maxLookups) {
		s := m.order[m.head]
		m.order[m.head] = nil
		m.head++
		if s.namesakes.list = without(s.namesakes.list, s); len(s.namesakes.list) == 0 {
			delete(m.lookups, s.key)
		}
		c := s.of
		if c.lookups = without(c.lookups, s); len(c.lookups) == 0 {
			delete(m.calls, s.call)
			m.ended.Put(c)
		}
		if len(m.unused) < maxUnused {
			m.unused = append(m.unused, s)
		}
	}
	if m.head > len(m.order)/2 {
		m.order = append(m.order[:0:0], m.order[m.head:]...)
		m.head = 0
		m.shrink()
	}
}

// shrink releases the memory that only a burst needed: some two megabytes.
func (m *memory) shrink() {
	if freelist.TooLarge(m.room, len(m.order)) {
		m.lookups, m.calls, m.unused = freelist.Compact(m.lookups), freelist.Compact(m.calls), nil
		m.ended.Trim()
		m.room = len(m.order)
	}
}

// without takes out an element; the oldest is the first.
func without(list []*seen, s *seen) []*seen {
	if len(list) > 0 && list[0] == s {
		list[0] = nil
		return list[1:]
	}
	for i := range list {
		if list[i] == s {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
