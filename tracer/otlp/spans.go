package otlp

import (
	"cmp"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// resourceSpans makes the spans of a batch of traces, those of one pod together.
func resourceSpans(id identity, batch []*trace.Trace) []*tracepb.ResourceSpans {
	var all []*tracepb.ResourceSpans
	of := map[pod]*tracepb.ScopeSpans{}
	for _, t := range batch {
		b := builder{trace: t, id: &t.TraceID, node: id.node()}
		b.build()
		for _, s := range b.spans {
			spans := of[s.pod]
			if spans == nil {
				spans = &tracepb.ScopeSpans{Scope: id.scope()}
				of[s.pod] = spans
				all = append(all, &tracepb.ResourceSpans{Resource: id.of(s.pod).resource(), ScopeSpans: []*tracepb.ScopeSpans{spans}})
			}
			spans.Spans = append(spans.Spans, s.Span)
		}
	}
	return all
}

// span is a span, and whose it is.
type span struct {
	*tracepb.Span
	pod pod
}

// builder makes the spans of one trace that this node is the one to send.
type builder struct {
	trace *trace.Trace
	id    *trace.TraceID // of the trace that spans are added to
	node  string
	spans []span
}

func (b *builder) build() {
	t := b.trace
	parent, client := clientSpan(t), t.Exchange != nil && seenAtClient(t.Exchange)
	if client {
		b.client(adopted(t.Query))
	}
	switch {
	case t.Query != nil:
		parent = t.Query.SpanID
		above := trace.SpanID{}
		if t.Query.ParentSpanID != nil {
			above = *t.Query.ParentSpanID
		}
		s := b.server(t.Query, parent, above, t.Server)
		if !client {
			// Nobody else here shows them.
			s.exchange(t.Exchange)
			b.judged(s)
		}
	case t.Exchange == nil:
		parent = b.refresh()
	case !client:
		b.observed(parent)
	}
	b.upstreams(t.Upstreams, parent, t.Query, t.Server)
}

// add begins a span.
func (b *builder) add(id, parent trace.SpanID, kind tracepb.Span_SpanKind, name, qtype string, start time.Time, of *trace.Endpoint) span {
	s := span{&tracepb.Span{
		// There is no type where a TCP connection could not be opened.
		TraceId: b.id[:], SpanId: id[:], Kind: kind, Name: strings.TrimSuffix(name+" "+qtype, " "),
		StartTimeUnixNano: nanoseconds(start), EndTimeUnixNano: nanoseconds(start), Flags: uint32(trace.FlagSampled),
	}, podOf(of)}
	if !parent.IsZero() {
		s.ParentSpanId = parent[:]
	}
	b.spans = append(b.spans, s)
	return s
}

// client is the lookup as its client's node saw it, or an upstream query as its
// server's node did.
func (b *builder) client(parent trace.SpanID) {
	t := b.trace
	name := "lookup"
	if t.Role == trace.RoleUpstream {
		name = "upstream" // whose lookup is not known
	}
	s := b.add(clientSpan(t), parent, tracepb.Span_SPAN_KIND_CLIENT, name, t.QType, t.Exchange.Time, t.Client)
	b.wire(s, t.Exchange)
	s.lasts(t.Exchange)
	s.exchange(t.Exchange)
	s.link(t.Exchange, *b.id)
	b.judged(s)
}

// observed is what a node on the way saw of a lookup.
func (b *builder) observed(parent trace.SpanID) {
	t := b.trace
	s := b.add(observedSpan(t, b.node), parent, tracepb.Span_SPAN_KIND_INTERNAL, "observed", t.QType, t.Exchange.Time, nil)
	b.wire(s, t.Exchange)
	s.lasts(t.Exchange)
	s.exchange(t.Exchange)
	s.link(t.Exchange, *b.id)
	b.judged(s)
}

// server is what CoreDNS did with a query.
func (b *builder) server(q *trace.Query, id, parent trace.SpanID, of *trace.Endpoint) span {
	s := b.add(id, parent, tracepb.Span_SPAN_KIND_SERVER, "coredns", q.QType, q.Time, of)
	s.ends(q.Duration)
	s.question(&q.DNS)
	s.answeredBy(q)
	s.hops(q.Time, q.Hops)
	if healthOf(q.Outcome, q.RCode, nil) == failing {
		s.fail(cmp.Or(q.Error, q.RCode, q.Outcome), cmp.Or(q.RCode, q.Outcome))
	}
	return s
}

// refresh is background work that a query set off.
func (b *builder) refresh() (serverSpan trace.SpanID) {
	t := b.trace
	id, parent := refreshSpan(t)
	s := b.add(id, parent, tracepb.Span_SPAN_KIND_INTERNAL, "refresh", t.QType, t.Time, t.Server)
	s.ends(t.Duration)
	s.lookup(t.QName, t.QType, "", t.RCode)
	b.judged(s)
	return id
}

// upstreams are the attempts to get an answer from upstreams, and what those did. q is
// the record of the server that made them, nil if there is none.
func (b *builder) upstreams(list []trace.Upstream, parent trace.SpanID, q *trace.Query, server *trace.Endpoint) {
	for i := range list {
		u := &list[i]
		var id trace.SpanID
		switch {
		case u.Attempt != nil:
			id = b.attemptSpan(parent, q, u.Attempt.Attempt)
		case q != nil:
			id = trace.NewSpanID(*b.id, parent, roleRepeat, i)
		default:
			id = trace.NewSpanID(*b.id, parent, trace.RoleAttempt, i+1)
		}
		b.upstream(u, id, parent, q, server)
	}
}

// attemptSpan names an attempt as a server that stamps does: by its own span, also
// where the work is in the background, below a span that it does not know of.
func (b *builder) attemptSpan(parent trace.SpanID, q *trace.Query, number int) trace.SpanID {
	if q == nil && b.trace.Exchange == nil && b.trace.Query == nil {
		_, parent = refreshSpan(b.trace)
	}
	return trace.NewSpanID(*b.id, parent, trace.RoleAttempt, number)
}

func (b *builder) upstream(u *trace.Upstream, id, parent trace.SpanID, q *trace.Query, server *trace.Endpoint) {
	start, qtype := b.trace.Time, b.trace.QType
	if q != nil {
		start, qtype = q.Time, q.QType
	}
	ex, at := u.Exchange, u.Attempt
	switch {
	case at != nil:
		start = start.Add(at.Start.Duration())
	case ex != nil:
		start, qtype = ex.Time, ex.QType
	}
	s := b.add(id, parent, tracepb.Span_SPAN_KIND_CLIENT, "upstream", qtype, start, server)
	switch {
	case at != nil && at.Duration != nil:
		s.ends(at.Duration)
	case ex != nil:
		s.lasts(ex)
	}
	if ex != nil {
		b.wire(s, ex)
		s.link(ex, *b.id)
	}
	for _, part := range u.Exchanges() {
		s.exchange(part)
	}
	s.attempt(at, u.Join)
	var of *trace.Endpoint
	if ex != nil {
		of = ex.Server
	}
	next, above := id, id
	if u.Query != nil {
		next = u.Query.SpanID
		if parent := adopted(u.Query); u.Query.TraceID != *b.id && !parent.IsZero() {
			// It adopted another trace, of a server that began one: its spans are in that
			// trace, and those of the servers further up.
			defer b.in(&u.Query.TraceID)()
			above = parent
		} else if u.Query.TraceID != *b.id {
			// It did not know whose attempt it served: its span gets the id that it
			// would have had.
			next = trace.NewSpanID(*b.id, id, trace.RoleServer, 0)
		}
		b.server(u.Query, next, above, of)
	}
	b.upstreams(u.Upstreams, next, u.Query, of)
}

// in adds spans to another trace, until back.
func (b *builder) in(id *trace.TraceID) (back func()) {
	before := b.id
	b.id = id
	return func() { b.id = before }
}
