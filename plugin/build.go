package dnstrace

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// builder makes records of closed recordings. A writer has one and reuses its
// memory for every record.
type builder struct {
	rec     *recording
	spans   []*span // of the record, in order of start
	hops    []trace.Hop
	tries   []trace.Attempt
	parents []int
	seconds []trace.Seconds
	query   trace.Query
	refresh trace.Refresh
	size    int
}

// appendRecord appends the record of rec as a line, and returns its kind too.
func (b *builder) appendRecord(line []byte, rec *recording) ([]byte, string) {
	b.load(rec)
	q := rec.query
	if rec != q {
		b.refresh = trace.Refresh{Header: b.header(), DNS: b.dns(q), Hops: b.hops, Upstreams: b.tries}
		switch q.cache {
		case trace.CacheStale:
			b.refresh.Cause = "stale"
		case trace.CacheHit:
			b.refresh.Cause = "prefetch"
		}
		return append(b.refresh.AppendJSON(line), '\n'), trace.KindRefresh
	}
	b.query = trace.Query{
		Header: b.header(), DNS: b.dns(q),
		SpanID: q.ident.spanID, ParentSpanID: &q.ident.parentID,
		ServerPort: q.server.Port(), Zone: q.zone, Cache: q.cache, AnsweredBy: q.answeredBy,
		Outcome: q.outcome, Error: q.errText, Hops: b.hops, Upstreams: b.tries,
	}
	// A server that listens on the wildcard address does not tell on which of
	// its addresses a datagram arrived.
	if addr := q.server.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		b.query.ServerIP = addr
	}
	return append(b.query.AppendJSON(line), '\n'), trace.KindQuery
}

func (b *builder) header() trace.Header {
	i := b.rec.ident
	i.compute()
	return trace.Header{Time: i.time.Add(time.Duration(b.rec.startedAt)), TraceID: i.traceID, Flow: i.flow}
}

func (b *builder) dns(q *recording) trace.DNS {
	i := q.ident
	d := trace.DNS{
		ClientIP: i.client.Addr(), ClientPort: i.client.Port(), QName: strings.ToLower(i.q.Name),
		QType: dns.Type(i.q.Qtype).String(), QClass: dns.Class(i.q.Qclass).String(), Protocol: i.proto, ID: i.id,
		Opcode: q.opcode, RequestSize: q.size, DNSSECOK: q.do, BufSize: q.bufsize,
	}
	if q.rcode == notSent {
		return d
	}
	d.RCode = rcodeText(q.rcode)
	b.size = q.respSize
	d.ResponseSize = &b.size
	d.Duration = b.duration(q.sentAt)
	return d
}

func rcodeText(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return strconv.Itoa(rcode)
}

// load sets hops and tries from the spans of rec.
func (b *builder) load(rec *recording) {
	b.rec = rec
	b.spans = append(b.spans[:0], rec.spans...)
	for _, m := range rec.merged {
		b.spans = append(b.spans, m.spans...)
	}
	if len(rec.merged) > 0 {
		slices.SortStableFunc(b.spans, func(x, y *span) int { return int(b.startOf(x) - b.startOf(y)) })
	}
	b.hops, b.tries, b.parents, b.seconds = b.hops[:0], b.tries[:0], b.parents[:0], b.seconds[:0]
	for _, s := range b.spans {
		if s.peer == "" {
			b.hops = append(b.hops, trace.Hop{Plugin: s.name, Parent: b.parentOf(s),
				Start: trace.Seconds(b.startOf(s)), Duration: b.durationOf(s)})
			continue
		}
		b.tries = append(b.tries, b.attempt(s, len(b.tries)+1))
	}
}

// startOf returns when s started, in nanoseconds since the record's time.
func (b *builder) startOf(s *span) int64 {
	return s.start + s.rec.startedAt - b.rec.startedAt
}

func (b *builder) durationOf(s *span) *trace.Seconds {
	if s.end == open {
		return nil
	}
	return b.duration(s.end - s.start)
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
