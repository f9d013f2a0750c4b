package dnstrace

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// builder makes records of closed recordings. It is used again for the next one,
// with its memory.
type builder struct {
	rec     *recording
	spans   []*span // of the record, in order of start
	hops    []trace.Hop
	tries   []trace.Attempt
	parents []int
	seconds []trace.Seconds
	stamped bool
	query   trace.Query
	refresh trace.Refresh
	size    int
	line    []byte

	observers map[attemptKey]prometheus.Observer
}

// builders are the builders that nobody uses just now.
var builders = sync.Pool{New: func() any { return new(builder) }}

// appendRecord appends the record of what b has loaded as a line, and returns
// its kind too. rate is that of a lookup that sampling chose.
func (b *builder) appendRecord(line []byte, rate *float64) ([]byte, string) {
	rec, q := b.rec, b.rec.query
	if rec != q {
		r := &b.refresh
		b.header(&r.Header)
		b.dns(&r.DNS, q)
		r.Cause, r.Hops, r.Upstreams, r.Sample = refreshCause(q.cache), b.hops, b.tries, rate
		return append(b.refresh.AppendJSON(line), '\n'), trace.KindRefresh
	}
	r := &b.query
	b.header(&r.Header)
	b.dns(&r.DNS, q)
	r.SpanID, r.ParentSpanID = q.ident.spanID, q.ident.parent()
	r.Zone, r.Cache, r.AnsweredBy = zones(q.plugin.serverZones).match(q.ident.q.Name), q.cache, q.answeredBy
	r.Outcome, r.Error, r.Stamped, r.Sample = q.outcome, q.errText, b.stamped, rate
	r.Hops, r.Upstreams = b.hops, b.tries
	// A server that listens on the wildcard address does not tell on which of
	// its addresses a datagram arrived.
	server, _ := address(q.front.writer.LocalAddr())
	r.ServerIP, r.ServerPort = netip.Addr{}, server.Port()
	if addr := server.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		r.ServerIP = addr
	}
	return append(b.query.AppendJSON(line), '\n'), trace.KindQuery
}

// refreshCause says why the cache refreshed what it answered with.
func refreshCause(cache string) string {
	switch cache {
	case trace.CacheStale:
		return "stale"
	case trace.CacheHit:
		return "prefetch"
	}
	return ""
}

func (b *builder) header(h *trace.Header) {
	i := b.rec.ident
	i.compute()
	h.Time, h.TraceID, h.Flow = i.time.Add(time.Duration(b.rec.startedAt)), i.traceID, i.flow
}

func (b *builder) dns(d *trace.DNS, q *recording) {
	i := q.ident
	d.ClientIP, d.ClientPort, d.Protocol, d.ID = i.client.Addr(), i.client.Port(), i.proto(), i.id
	d.QName, d.QType, d.QClass = strings.ToLower(i.q.Name), typeText(i.q.Qtype), classText(i.q.Qclass)
	d.Opcode, d.RequestSize, d.DNSSECOK, d.BufSize = int(q.opcode), int(q.size), q.do, int(q.bufsize)
	d.RCode, d.ResponseSize, d.Duration = "", nil, nil
	if q.rcode != notSent {
		b.size = q.respSize
		d.RCode, d.ResponseSize, d.Duration = rcodeText(q.rcode), &b.size, b.duration(q.sentAt)
	}
}

// The names that nearly every record has are not looked up.

func typeText(qtype uint16) string {
	switch qtype {
	case dns.TypeA:
		return "A"
	case dns.TypeAAAA:
		return "AAAA"
	}
	return dns.Type(qtype).String()
}

func classText(class uint16) string {
	if class == dns.ClassINET {
		return "IN"
	}
	return dns.Class(class).String()
}

func rcodeText(rcode int) string {
	if rcode == dns.RcodeSuccess {
		return "NOERROR"
	}
	return trace.RCodeName(rcode)
}

// load sets hops and tries from the spans of rec.
func (b *builder) load(rec *recording) {
	b.rec = rec
	b.spans = append(b.spans[:0], rec.spans...)
	merged := false
	for _, m := range rec.background {
		if m.merged {
			b.spans = append(b.spans, m.spans...)
			merged = true
		}
	}
	if merged {
		slices.SortStableFunc(b.spans, func(x, y *span) int { return int(b.startOf(x) - b.startOf(y)) })
	}
	b.hops, b.tries, b.parents, b.seconds = b.hops[:0], b.tries[:0], b.parents[:0], b.seconds[:0]
	b.stamped = false
	for _, s := range b.spans {
		if s.peer == "" {
			b.hops = append(b.hops, trace.Hop{Plugin: s.name, Parent: b.parentOf(s),
				Start: trace.Seconds(b.startOf(s)), Duration: b.durationOf(s)})
			continue
		}
		b.tries = append(b.tries, b.attempt(s))
		b.stamped = b.stamped || s.stamped
	}
}

// startOf returns when s started, in nanoseconds since the record's time.
func (b *builder) startOf(s *span) int64 {
	return s.began + s.rec.startedAt - b.rec.startedAt
}

func (b *builder) durationOf(s *span) *trace.Seconds {
	if s.end == open {
		return nil
	}
	return b.duration(s.end - s.began)
}

// duration returns a pointer that is good until the next record.
func (b *builder) duration(ns int64) *trace.Seconds {
	b.seconds = append(b.seconds, trace.Seconds(ns))
	return &b.seconds[len(b.seconds)-1]
}

// parentOf returns the index of the hop above s, or nil at the top.
func (b *builder) parentOf(s *span) *int {
	above := hopAbove(s)
	index := 0
	for _, other := range b.spans {
		if other == above {
			b.parents = append(b.parents, index)
			return &b.parents[len(b.parents)-1]
		}
		if other.peer == "" {
			index++
		}
	}
	return nil
}

// hopAbove returns the hop that s is part of. forward goes on under the span of
// its last attempt when it hands a query to the next forward.
func hopAbove(s *span) *span {
	above := s.parent
	for above != nil && above.peer != "" {
		above = above.parent
	}
	return above
}
