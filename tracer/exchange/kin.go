package exchange

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// What one call of a resolver asks for has its client's address and the first label of
// the name in common: A and AAAA, the names of a search list, a retry at another server or
// over TCP. An attempt to connect has no name.

// Bounds of a search for kin: a client that has more under way with one label asks for it
// over and over, and which are of one call is ambiguous. musl asks three servers for two
// types at once.
const (
	maxKin      = 8
	maxKinTried = 256
)

// kinOf returns what the exchanges of a client with one first label are found by. name is
// in wire format; none for attempts to connect.
func kinOf(client netip.Addr, netns uint32, name []byte) uint64 {
	const label = 63 + 1
	var b [16 + label + 4]byte
	addr := client.As16()
	n := copy(b[:], addr[:])
	if len(name) > 0 {
		n += copy(b[n:n+label], name[:min(1+int(name[0]), len(name))])
	}
	binary.BigEndian.PutUint32(b[n:], netns)
	return hash(b[:n+4])
}

func (ex *open) kinKey() uint64 { return kinOf(ex.key.client.Addr(), ex.key.netns, ex.question) }

// Kin returns the exchanges under way that were begun between two times and may be of one
// call with an exchange that was passed on: what its client asks for with the same first
// label and, where its answer was truncated, the client's attempts to connect to its
// server. The records have what distinguishes lookups, as of now; the table owns them, and
// they are valid until the next call.
func (t *Table) Kin(of *trace.Exchange, from, until time.Time) []*trace.Exchange {
	if !t.age.begunBy(until) {
		return nil
	}
	var name [maxName]byte
	n, err := trace.PackName(of.QName, name[:])
	if err != nil || of.QName == "" {
		return nil
	}
	netns := uint32(0)
	if of.ClientIP.IsLoopback() {
		place, _ := of.ClientPlace()
		netns = place.NetNS
	}
	found := t.kinFrom(t.kinFound[:0], kinOf(of.ClientIP, netns, name[:n]), of, from, until)
	if of.Truncated {
		found = t.kinFrom(found, kinOf(of.ClientIP, netns, nil), of, from, until)
	}
	t.kinFound = found
	if len(found) > maxKin {
		return nil
	}
	records := t.sketches[:0]
	for i, ex := range found {
		records = append(records, t.sketch(ex, &t.sketched[i]))
	}
	t.sketches = records
	return records
}

func (t *Table) kinFrom(found []*open, k uint64, of *trace.Exchange, from, until time.Time) []*open {
	for ex := range t.kin.Of(k, maxKinTried) {
		switch {
		case len(found) > maxKin:
			return found
		case ex.wall.After(until), ex.wall.Before(from), ex.key.client.Addr() != of.ClientIP, !ex.news(), ex.answeredWellBefore(of.Time):
		case ex.connects && ex.server != netip.AddrPortFrom(of.ServerIP, of.ServerPort):
		default:
			found = append(found, ex)
		}
	}
	return found
}

// followUpWindow bounds the time between a usable answer and the next query of the same
// call (goesOn of package assemble).
const followUpWindow = 50 * time.Millisecond

// answeredWellBefore tells whether an exchange had a usable answer more than followUpWindow
// before a time.
func (ex *open) answeredWellBefore(at time.Time) bool {
	return ex.answer != nil && ex.answer.rcode == dns.RcodeSuccess && ex.answer.flags&bitTC == 0 &&
		ex.wall.Add(time.Duration(ex.last-ex.first)+followUpWindow).Before(at)
}

// sketch makes the part of an exchange's record that distinguishes it from others, without
// its identity, which it gets when it is passed on.
func (t *Table) sketch(ex *open, e *emitted) *trace.Exchange {
	path := e.record.Path
	*e = emitted{}
	r := &e.record
	r.Path = path
	r.Path.Reset()
	r.V, r.Record, r.Time, r.Node = trace.Version, trace.KindExchange, ex.wall, t.cfg.Node
	e.question(ex)
	t.name(ex, r)
	r.Outcome, r.Transmissions = trace.OutcomeUnanswered, max(int(ex.sendings), 1)
	left := ex.left()
	switch i := left.Index(); {
	case r.Transmissions > 1: // when it was sent last
		r.Path, r.Milestones.Query.Left = ex.path.Clone(), left
	case i >= 0:
		ex.path.CopyTo(&r.Path, i)
		r.Milestones.Query.Left = trace.MilestoneAt(0)
	default:
		r.Drops = ex.drops // which may show where its client is
	}
	if !ex.responded {
		return r
	}
	if i, ok := t.answeredAt(ex); ok {
		e.respond(ex)
		e.duration = ex.path.Offset(i)
		r.Outcome, r.Duration = trace.OutcomeAnswered, &e.duration
	}
	return r
}
