package assemble

import (
	"cmp"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/spare"
)

// Bounds of what is remembered to find the lookups of one getaddrinfo call. A
// lookup is remembered until what it may belong to was passed on; one has some
// 350 bytes.
const (
	rememberCall = 20 * time.Second
	maxCalls     = 16384
	// So many lookups of one process that begin alike within rememberCall are
	// not a call, and not worth comparing each with each.
	maxAlike = 32
)

// calls remembers the lookups of each client process, to see which of them are
// one getaddrinfo call: A and AAAA, the names of the search list, a retry from
// another port, a retry over TCP. See callRules for what makes two lookups one
// call.
type calls struct {
	byCaller map[caller]*recent
	cut      []truncated       // oldest first
	attempts []*trace.Exchange // to connect, likewise
	merged   []asking          // memory of withKin
	order    []remembered      // oldest first, from head on
	head     int
	most     int // remembered since shrink last looked
	sequence uint64
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

type remembered struct {
	of       *recent
	sequence uint64
	until    int64
}

// recent are the lookups of a caller, in order of their start.
type recent struct {
	caller caller
	list   []asking  // the end of room
	room   []asking  // from its beginning
	one    [1]asking // most are asked once
	mixed  bool      // list is not in order of sequence
}

// asking is what matters of a lookup here. Times are in nanoseconds since 1970.
type asking struct {
	id         trace.TraceID
	call       trace.TraceID // what its call is named, once a lookup of it was passed on
	shown      trace.TraceID // what its own record names
	name       string
	qtype      string
	sequence   uint64
	start, end int64
	last       int64  // when it was sent last
	group      int    // index in its cluster of the first of its group
	port, dns  uint16 // dns: the id
	server     uint32 // a hash of the address that it asked
	records    uint16 // of the answer
	tcp        bool
	answered   bool
	failed     bool // answered, but not with what was asked for
	truncated  bool
	inferred   bool
	told       bool // passed on
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
	key := callerOf(ex)
	r := c.byCaller[key]
	if r == nil {
		r = c.fresh(key)
		c.byCaller[key] = r
	}
	a := newAsking(ex)
	if i := r.find(ex); i >= 0 {
		old := &r.list[i]
		a.sequence, a.told, a.call, a.shown = old.sequence, old.told, old.call, old.shown
		*old = a
		return r
	}
	c.sequence++ // is larger than all in the list
	a.sequence = c.sequence
	if a.truncated {
		c.noteTruncated(ex, key)
	}
	if ex.Connects() {
		c.noteAttempt(ex)
	}
	r.insert(a)
	if len(r.list) > maxAlike {
		r.dropFirst()
	}
	c.order = append(c.order, remembered{r, a.sequence, now.Add(rememberCall).UnixNano()})
	c.most = max(c.most, len(c.order)-c.head)
	return r
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
	r.mixed = r.mixed || i < len(r.list)
	before := cap(r.list)
	if r.list = slices.Insert(r.list, i, a); cap(r.list) != before {
		r.room = r.list[:0]
	}
}

// fresh returns the memory of a caller's lookups, none so far.
func (c *calls) fresh(key caller) *recent {
	r := &recent{caller: key}
	r.room = r.one[:0]
	r.list = r.room
	return r
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

// expire forgets what is old, or too much.
func (c *calls) expire(now time.Time) {
	at := now.UnixNano()
	for c.head < len(c.order) && (at > c.order[c.head].until || len(c.order)-c.head >= maxCalls) {
		old := c.order[c.head]
		c.order[c.head] = remembered{}
		c.head++
		r := old.of
		switch {
		case len(r.list) == 0:
			continue // dropped before, as one of too many
		case r.list[0].sequence == old.sequence: // nearly always
			r.dropFirst()
		case r.mixed:
			r.drop(old.sequence)
		}
		if len(r.list) == 0 {
			delete(c.byCaller, r.caller)
		}
	}
	if c.head > len(c.order)/2 {
		c.order = slices.Delete(c.order, 0, c.head)
		c.head = 0
	}
}

func (r *recent) dropFirst() {
	r.list[0] = asking{}
	r.list = r.list[1:]
}

// drop takes out the lookup with a sequence, if it is still there.
func (r *recent) drop(sequence uint64) {
	r.list = slices.DeleteFunc(r.list, func(a asking) bool { return a.sequence == sequence })
	r.mixed = !slices.IsSortedFunc(r.list, func(a, b asking) int { return cmp.Compare(a.sequence, b.sequence) })
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
	again    []told // lookups of it whose records name another, or none
}

// told is a lookup that was passed on.
type told struct {
	id    trace.TraceID
	start int64
}

// of returns the call that a lookup is part of; false for a lookup that stands alone, or
// whose call cannot be told from another. r is where add remembered it, nil if it did not;
// kin is what is under way and may be of it. The
// call is named by the trace id of its first lookup that was passed on: a retry may be over
// long before the lookup that it repeats is given up.
func (c *calls) of(r *recent, ex *trace.Exchange, kin []*trace.Exchange, now time.Time) (call named, ok bool) {
	c.expire(now)
	if r == nil {
		return call, false
	}
	at := r.find(ex)
	if at < 0 {
		return call, false
	}
	self := &r.list[at]
	self.told = true
	list, i := cluster(c.withKin(r, at, kin))
	group(list)
	call.inferred = list[i].inferred
	call.id, ok = nameOf(list, i)
	if id, before := c.truncatedBefore(ex); len(before) > 0 && !ok {
		call.id, call.inferred, ok = id, true, true
		for _, other := range before {
			other.call = call.id
			call.again = appendTold(call.again, other, call.id)
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
		call.again = appendTold(call.again, other, call.id)
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

// appendTold adds a lookup that was passed on as one of another call, or of none.
func appendTold(list []told, a *asking, call trace.TraceID) []told {
	if !a.told || a.shown == call {
		return list
	}
	return append(list, told{a.id, a.start})
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
	from, until := 0, list[0].reach()
	for j := 1; j < len(list); j++ {
		if list[j].start > until {
			if j > i {
				return list[from:j], i - from
			}
			from = j
		}
		until = max(until, list[j].reach())
	}
	return list[from:], i - from
}

// shrink lets go of the memory that only a burst needed.
func (c *calls) shrink() {
	if spare.TooLarge(cap(c.order), c.most) {
		c.order, c.head = slices.Clone(c.order[c.head:]), 0
		c.byCaller = spare.Map(c.byCaller)
	}
	c.most = len(c.order) - c.head
}
