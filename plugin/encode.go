package dnstrace

import (
	"net/netip"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// encoder makes lines of records, for one writer.
type encoder struct {
	query   trace.Query
	refresh trace.Refresh
	hops    []trace.Hop
	tries   []trace.Attempt
	// What the optional fields of hops and tries point to. They have their size before
	// something points to them.
	parents []int
	seconds []trace.Seconds
	size    int
}

// append appends a record as a line.
func (e *encoder) append(b []byte, rec *record) []byte {
	if rec.origin != nil {
		r := &e.refresh
		e.header(&r.Header, rec)
		e.dns(&r.DNS, rec.origin)
		r.Cause, r.Hops, r.Upstreams, r.Sample = refreshCause(rec.origin.cache), e.hops, e.tries, rec.rate
		return append(r.AppendJSON(b), '\n')
	}
	r, i := &e.query, rec.ident
	e.header(&r.Header, rec)
	e.dns(&r.DNS, rec)
	r.SpanID, r.ParentSpanID = i.spanID, i.parent()
	r.Zone, r.Cache, r.AnsweredBy = zones(rec.plugin.serverZones).match(i.q.Name), rec.cache, rec.answeredBy
	r.Outcome, r.Error, r.Sample = rec.outcome, rec.errText, rec.rate
	r.Hops, r.Upstreams, r.Stamped = e.hops, e.tries, false
	for i := range rec.attempts {
		r.Stamped = r.Stamped || rec.attempts[i].stamped
	}
	// A server that listens on the wildcard address does not tell on which of
	// its addresses a datagram arrived.
	r.ServerIP, r.ServerPort = netip.Addr{}, rec.server.Port()
	if addr := rec.server.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		r.ServerIP = addr
	}
	return append(r.AppendJSON(b), '\n')
}

// header sets what every record has, and the hops and attempts.
func (e *encoder) header(h *trace.Header, rec *record) {
	i := rec.ident
	i.compute()
	h.Time, h.TraceID, h.Flow = i.time.Add(time.Duration(rec.began)), i.traceID, i.flow
	e.hops, e.tries = e.hops[:0], e.tries[:0]
	if parts := len(rec.hops) + len(rec.attempts); cap(e.seconds) <= parts {
		e.parents, e.seconds = make([]int, 0, 2*parts), make([]trace.Seconds, 0, 2*parts+1)
	}
	e.parents, e.seconds = e.parents[:0], e.seconds[:0]
	for i := range rec.hops {
		d := &rec.hops[i]
		hop := trace.Hop{Plugin: d.name, Start: trace.Seconds(d.began - rec.began), Duration: e.duration(d.began, d.end)}
		if d.parent != none {
			e.parents = append(e.parents, d.parent)
			hop.Parent = &e.parents[len(e.parents)-1]
		}
		e.hops = append(e.hops, hop)
	}
	for i := range rec.attempts {
		d := &rec.attempts[i]
		a := trace.Attempt{Attempt: d.number, Address: d.address, Start: trace.Seconds(d.began - rec.began), Duration: e.duration(d.began, d.end),
			Outcome: d.outcome, Error: d.errText, Plugin: rec.makerOf(i)}
		a.QName, a.QType = rec.askedFor(i)
		e.tries = append(e.tries, a)
	}
}

// duration returns a pointer that is good until the next record.
func (e *encoder) duration(began, end int64) *trace.Seconds {
	if end == open {
		return nil
	}
	e.seconds = append(e.seconds, trace.Seconds(end-began))
	return &e.seconds[len(e.seconds)-1]
}

// dns sets the fields of a query; rec is its record.
func (e *encoder) dns(d *trace.DNS, rec *record) {
	i := rec.ident
	d.ClientIP, d.ClientPort, d.Protocol, d.ID = i.client.Addr(), i.client.Port(), i.proto(), i.id
	d.QName, d.QType, d.QClass = strings.ToLower(i.q.Name), dns.Type(i.q.Qtype).String(), dns.Class(i.q.Qclass).String()
	d.Opcode, d.RequestSize, d.DNSSECOK, d.BufSize = rec.opcode, rec.size, rec.do, int(rec.bufsize)
	d.RCode, d.ResponseSize, d.Duration = "", nil, nil
	if rec.rcode != notSent {
		e.size = rec.respSize
		d.RCode, d.ResponseSize, d.Duration = trace.RCodeName(rec.rcode), &e.size, e.duration(0, rec.sentAt)
	}
}
