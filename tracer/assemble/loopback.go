package assemble

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// A server block that forwards to another one of the same CoreDNS asks it at a loopback address,
// most often at a port that is not observed. Both write a record, and the records alone show
// which is behind which: they are of one process, and one says that it took, from a loopback
// address and at that port, the question of the other's attempt while that lasted.

// inside returns the record that an attempt over loopback led to; nil if there is none, or its
// packets were observed.
func (a *Assembler) inside(s *slot) *lookup {
	if s.inner != nil || len(s.got) > 0 || s.asked == nil || s.of.from == nil || s.dials() {
		return s.inner
	}
	addr, err := netip.ParseAddrPort(s.at.Address)
	if err != nil || !addr.Addr().IsLoopback() {
		return nil
	}
	var found *lookup
	n, records := 0, s.asked.records
	for i := records.from(s.begin - slack); i < len(records) && records[i].at <= s.limit+slack && n < maxTried; i++ {
		y := records[i].item
		if y == s.of || y.slot != nil || y.parent != nil || y.exchange != nil || !sameSender(y.from, s.of.from) || !tookAt(y.query, addr) {
			continue
		}
		if n++; found == nil {
			found = y
		}
	}
	if found == nil {
		return nil
	}
	s.inner, s.exact, found.slot = found, n == 1, s
	if of := s.of.server; !found.server.placed && of.placed {
		found.server.place, found.server.placed, found.server.pid = of.place, true, of.pid
	}
	a.admit(found) // of a process of which packets show that it is a server
	return found
}

// tookAt tells whether a record is of a query that came over loopback to an address and port.
func tookAt(q *trace.Query, addr netip.AddrPort) bool {
	at := q.ServerIP
	return q.ServerPort == addr.Port() && q.ClientIP.IsLoopback() && (!at.IsValid() || at.IsUnspecified() || at.Unmap() == addr.Addr())
}

// innerUpstream makes the entry of an attempt of which the record behind it is known, and not the
// packets.
func (a *Assembler) innerUpstream(s *slot, gaps *[]string, depth int) trace.Upstream {
	u := trace.Upstream{Query: s.inner.query, Join: trace.JoinInferred, Upstreams: a.upstreams(s.inner, gaps, depth+1)}
	if s.exact {
		u.Join = trace.JoinExact
	}
	return u
}
