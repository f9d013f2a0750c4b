package assemble

import (
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// Bounds of what is remembered to find the lookups of one getaddrinfo call. A
// lookup is remembered until what it may belong to was passed on; one has some
// 350 bytes.
const (
	rememberCall = 20 * time.Second
	maxCalls     = 16384
	// More lookups of one process that begin alike are not a call, and not worth comparing
	// each with each: the last ones are remembered.
	maxAlike = 32
)

// calls remembers the lookups of each client process, to see which of them are
// one getaddrinfo call: A and AAAA, the names of the search list, a retry from
// another port, a retry over TCP. See group (callrules.go) for what makes two lookups one
// call.
type calls struct {
	byCaller  map[caller]*recent
	truncated []truncated       // oldest first
	attempts  []*trace.Exchange // to connect, likewise
	merged    []asking          // memory of withKin
	// Callers in the order in which they asked last.
	oldest, newest *recent
	held           int // lookups
	room           int // the most callers that byCaller held
}

// caller is who asks, and the first label of the name, which all names of a
// search list have in common. Where the process is not known, only lookups from
// one socket are compared.
type caller struct {
	place trace.Place
	pid   int
	addr  netip.AddrPort // zero where the process is known
	label string
}

// recent are the lookups of a caller, in order of their start.
type recent struct {
	caller caller
	list   []asking  // the end of room
	room   []asking  // from its beginning
	one    [1]asking // most are asked once
	until  int64     // when they are forgotten

	before, after *recent // in the order of calls
}

// asking is what matters of a lookup here. Times are in nanoseconds since 1970.
type asking struct {
	id         trace.TraceID
	call       trace.TraceID // what its call is named, once a lookup of it was passed on
	shown      trace.TraceID // what its own record names
	name       string
	qtype      string
	start, end int64
	last       int64  // when it was sent last
	reached    int64  // reach of it and of those before it in its list, the last
	group      int    // index in its cluster of the first of its group
	port, dns  uint16 // dns: the id
	server     uint32 // a hash of the address that it asked
	records    uint16 // of the answer
	tcp        bool
	answered   bool
	failed     bool // answered, but not with what was asked for
	truncated  bool
	inferred   bool
	reported   bool // passed on
	open       bool // under way
}

func newCalls() *calls { return &calls{byCaller: map[caller]*recent{}} }

func callerOf(ex *trace.Exchange) caller {
	label, _, _ := strings.Cut(ex.QName, ".")
	if place, ok := ex.ClientPlace(); ok && ex.Client != nil && ex.Client.PID != 0 {
		return caller{place: place, pid: ex.Client.PID, label: label}
	}
	return caller{addr: netip.AddrPortFrom(ex.ClientIP, ex.ClientPort), label: label}
}

// add remembers a client's lookup among those of its caller; a later record of it replaces
// the earlier.
func (c *calls) add(ex *trace.Exchange, now time.Time) *recent {
	c.expire(now)
	r := c.touch(callerOf(ex), now)
	a := newAsking(ex)
	if i := r.find(ex); i >= 0 {
		old := &r.list[i]
		a.reported, a.call, a.shown = old.reported, old.call, old.shown
		*old = a
		reachFrom(r.list, i)
		return r
	}
	if a.truncated {
		c.noteTruncated(ex, r.caller)
	}
	if ex.Connects() {
		c.noteAttempt(ex)
	}
	r.insert(a)
	if c.held++; len(r.list) > maxAlike {
		c.dropFirst(r)
	}
	return r
}

// touch returns what is remembered of a caller that asks now.
func (c *calls) touch(key caller, now time.Time) *recent {
	r := c.byCaller[key]
	if r == nil {
		r = &recent{caller: key}
		r.room = r.one[:0]
		r.list = r.room
		c.byCaller[key] = r
		c.room = max(c.room, len(c.byCaller))
	} else {
		c.unlink(r)
	}
	r.before = c.newest
	if c.newest = r; r.before != nil {
		r.before.after = r
	} else {
		c.oldest = r
	}
	r.until = now.Add(rememberCall).UnixNano()
	return r
}

// unlink takes a caller out of the order.
func (c *calls) unlink(r *recent) {
	if r.before != nil {
		r.before.after = r.after
	} else {
		c.oldest = r.after
	}
	if r.after != nil {
		r.after.before = r.before
	} else {
		c.newest = r.before
	}
	r.before, r.after = nil, nil
}

// insert keeps the order.
func (r *recent) insert(a asking) {
	if len(r.list) == cap(r.list) && len(r.list) < cap(r.room) {
		// What was dropped from the front left room there.
		n := copy(r.room[:cap(r.room)], r.list)
		clear(r.room[n:cap(r.room)])
		r.list = r.room[:n]
	}
	i := len(r.list)
	for i > 0 && a.before(&r.list[i-1]) {
		i--
	}
	before := cap(r.list)
	if r.list = slices.Insert(r.list, i, a); cap(r.list) != before {
		r.room = r.list[:0]
	}
	reachFrom(r.list, i)
}

// reachFrom completes a list whose lookups from i on have changed.
func reachFrom(list []asking, i int) {
	for ; i < len(list); i++ {
		list[i].reached = list[i].reach()
		if i > 0 {
			list[i].reached = max(list[i].reached, list[i-1].reached)
		}
	}
}

func newAsking(ex *trace.Exchange) asking {
	a := asking{
		id: ex.TraceID, name: ex.QName, qtype: ex.QType, tcp: ex.Protocol == "tcp", port: ex.ClientPort,
		dns: ex.ID, truncated: ex.Truncated, answered: ex.Outcome == trace.OutcomeAnswered, start: ex.Time.UnixNano(),
		server: hashOf(netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)),
	}
	a.last = a.start
	if ex.AnswerCount != nil {
		a.records = uint16(min(*ex.AnswerCount, math.MaxUint16))
	}
	if ex.Transmissions > 1 {
		a.last = lastQuery(ex).UnixNano()
	}
	a.failed = a.answered && (ex.RCode == "NXDOMAIN" || ex.RCode == "SERVFAIL" || ex.RCode == "REFUSED")
	a.end = a.start
	if ex.Duration != nil {
		a.end += int64(*ex.Duration)
	}
	return a
}

// hashOf makes an address short: calls are many, and only whether two are equal matters.
func hashOf(addr netip.AddrPort) uint32 { return uint32(maphash.Comparable(seed, addr)) }

var seed = maphash.MakeSeed()

// before orders lookups by start, and equal ones by identity, so that the order
// in which they come makes no difference.
func (a *asking) before(b *asking) bool {
	if a.start != b.start {
		return a.start < b.start
	}
	return string(a.id[:]) < string(b.id[:])
}

// expire forgets what is old, or too much: first of all of those that have not asked for
// the longest time.
func (c *calls) expire(now time.Time) {
	for c.oldest != nil && (c.oldest.until < now.UnixNano() || c.held >= maxCalls) {
		r := c.oldest
		for old := r.until < now.UnixNano(); len(r.list) > 0 && (old || c.held >= maxCalls); {
			c.dropFirst(r)
		}
		if len(r.list) == 0 {
			c.unlink(r)
			delete(c.byCaller, r.caller)
		}
	}
}

func (c *calls) dropFirst(r *recent) {
	r.list[0] = asking{}
	r.list = r.list[1:]
	c.held--
}

func (r *recent) find(ex *trace.Exchange) int { return r.at(ex.Time.UnixNano(), ex.TraceID) }

// at returns the index of the lookup with a start and an id; -1: there is none.
func (r *recent) at(start int64, id trace.TraceID) int {
	// Most are asked for while they are among the newest.
	for i := len(r.list) - 1; i >= 0 && r.list[i].start >= start; i-- {
		if r.list[i].start == start && r.list[i].id == id {
			return i
		}
	}
	return -1
}

// named is the call that a lookup is part of.
type named struct {
	id       trace.TraceID
	inferred bool
	again    []reportedLookup // lookups of it whose records name another, or none
}

// reportedLookup is a lookup that was passed on.
type reportedLookup struct {
	id    trace.TraceID
	start int64
}

// of returns the call that a lookup is part of; false for a lookup that stands alone, or
// whose call is ambiguous. r is where add remembered it, nil if it did not; kinUntil returns
// what is under way, began up to a time, and may be of it. The call has the trace id of its
// first lookup that was passed on: a retry may be over long before the lookup that it
// repeats is given up.
func (c *calls) of(r *recent, ex *trace.Exchange, kinUntil func(time.Time) []*trace.Exchange, now time.Time) (call named, ok bool) {
	c.expire(now)
	if r == nil {
		return call, false
	}
	at := r.find(ex)
	if at < 0 {
		return call, false
	}
	self := &r.list[at]
	self.reported = true
	kin := kinUntil(time.Unix(0, self.reach()))
	list, i := cluster(c.withKin(r, at, kin))
	group(list)
	call.inferred = list[i].inferred
	call.id, ok = nameOf(list, i)
	if id, before := c.truncatedBefore(ex); len(before) > 0 && !ok {
		call.id, call.inferred, ok = id, true, true
		for _, other := range before {
			other.call = call.id
			call.again = appendReported(call.again, other, call.id)
		}
	}
	if id, after := c.connectsAfter(ex, self, kin); after && !ok {
		call.id, call.inferred, ok = id, true, true
	}
	if !ok {
		return call, false
	}
	for j := range list {
		if list[j].open || list[j].group != list[i].group || j == i {
			continue
		}
		other := &r.list[r.at(list[j].start, list[j].id)]
		other.call = call.id
		call.again = appendReported(call.again, other, call.id)
	}
	self.call, self.shown = call.id, call.id
	return call, true
}

// nameOf returns what the call of lookup i is named, and whether there is more of it.
func nameOf(list []asking, i int) (id trace.TraceID, more bool) {
	id = list[i].id
	if first := &list[list[i].group]; !first.open {
		id = first.id // a record of what is under way may have another
	}
	for j := range list {
		if list[j].group != list[i].group {
			continue
		}
		if !list[j].call.IsZero() {
			return list[j].call, true
		}
		more = more || j != i
	}
	return id, more
}

// appendReported adds a lookup that was passed on as one of another call, or of none.
func appendReported(list []reportedLookup, a *asking, call trace.TraceID) []reportedLookup {
	if !a.reported || a.shown == call {
		return list
	}
	return append(list, reportedLookup{a.id, a.start})
}

// withKin returns the lookups of a caller in order of their start, with those under way,
// and the index of the one that is at i without those.
func (c *calls) withKin(r *recent, i int, kin []*trace.Exchange) ([]asking, int) {
	list := r.list
	for _, ex := range kin {
		if callerOf(ex) != r.caller {
			continue
		}
		if len(list) == len(r.list) {
			list = append(c.merged[:0], r.list...)
		}
		a := newAsking(ex)
		a.open = true
		at, _ := slices.BinarySearchFunc(list, a, func(x, y asking) int {
			if x.before(&y) {
				return -1
			}
			return 1
		})
		list = slices.Insert(list, at, a)
		reachFrom(list, at)
		c.merged = list[:0]
		if at <= i {
			i++
		}
	}
	return list, i
}

// cluster returns the part of a list around i that no other lookup can go on with, or lead
// to, and the index of i in it: a busy process that asks one name over and over has many
// small ones, and to compare each with each would cost more than all else that is done for
// a lookup.
func cluster(list []asking, i int) ([]asking, int) {
	from, until := i, i+1
	for from > 0 && list[from-1].reached >= list[from].start {
		from--
	}
	for until < len(list) && list[until-1].reached >= list[until].start {
		until++
	}
	return list[from:until], i - from
}

// shrink releases the memory that only a burst needed.
func (c *calls) shrink() {
	if freelist.TooLarge(c.room, len(c.byCaller)) {
		c.byCaller, c.room = freelist.Compact(c.byCaller), len(c.byCaller)
	}
}
