package dnstrace

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/request"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// Who owns the record of a query, or of a refresh that it set off:
//
//  1. As long as it is not closed, the query: everybody who has a span, a context or the writer of
//     it may change the record, with the lock of the query.
//  2. Then who closed it, and nobody else: that goroutine judges, counts and samples it. Who comes later,
//     because a plugin goes on after it returned, finds it closed, and changes nothing.
//  3. push hands it to the writers of the outputs. From here on nobody changes it.
//
// A query is closed when its plugins have returned, a refresh when the cache's is done, but not
// before its query. A refresh that the cache waited for becomes part of its query then.

// query is a query: what is fixed when it comes, its answer, and what CoreDNS did for it. All times are in
// nanoseconds since that of its identity.
type query struct {
	plugin  *Dnstrace
	metrics *serverMetrics
	ident   *identity
	own     identity // what ident points to, unless Metadata made one
	server  netip.AddrPort
	size    int
	opcode  int
	bufsize uint16
	do      bool
	writer  responseWriter
	top     span // above the first handler

	mu         sync.Mutex
	record               // its own
	attempted  int       // attempts of the query and its refreshes
	refreshes  []*record // that started before the query was closed
	calls      int       // of inline that are used
	inline     [2]span
	rcode      int // or notSent
	respSize   int
	answeredAt int64 // the first message of the answer, or open
	sentAt     int64 // the last one
	answeredBy string
	cache      string
	outcome    string
	errText    string
}

// begin starts a query, or returns nil for one that makes no record of its own: it is not in our zones, or part
// of another one.
func (d *Dnstrace) begin(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *query {
	ident, nested := identityOf(ctx)
	if d.Next == nil || nested || spanOf(ctx) != nil || len(r.Question) == 0 || d.zones.match(r.Question[0].Name) == "" {
		return nil
	}
	q := &query{plugin: d, ident: ident, metrics: d.metricsOf(ctx), size: r.Len(), opcode: r.Opcode, rcode: notSent, answeredAt: open}
	q.record.init(q)
	if ident == nil || ident.plugin != d { // of a server block whose view did not match
		q.ident = &q.own
		q.own.init(d, w, r)
	}
	q.server, _ = address(w.LocalAddr())
	var size uint16
	if opt := r.IsEdns0(); opt != nil {
		size, q.do = opt.UDPSize(), opt.Do()
	}
	q.bufsize = edns.Size(q.ident.proto, size)
	q.writer = responseWriter{ResponseWriter: w, code: d.optionCode, q: q}
	q.top = span{Span: nothing, ctx: ctx, q: q, rec: &q.record, name: pluginName, hidden: true}
	if other := ot.SpanFromContext(ctx); other != nil {
		// What plugin.NextOrFailure does for the plugins after this one.
		q.top.Span = other.Tracer().StartSpan(d.Next.Name(), ot.ChildOf(other.Context()))
		q.top.ctx = ot.ContextWithSpan(ctx, q.top.Span)
	}
	return q
}

// now returns the nanoseconds since the query's time.
func (q *query) now() int64 { return int64(time.Since(q.ident.time)) }

// end closes a query whose plugins returned.
func (q *query) end(r *dns.Msg, rcode int, err error) {
	q.mu.Lock()
	if err != nil {
		q.errText = errorText(err.Error())
	}
	switch {
	case q.answeredAt != open: // the writer noted the rest
		if err != nil { // what was written says so: rewrite answers for the plugins after it
			q.outcome = trace.OutcomeError
		}
	case q.outcome == trace.OutcomeNoResponse: // writing it failed
	case plugin.ClientWrite(rcode):
		q.outcome, q.cache = trace.OutcomeNoResponse, q.unansweredCache()
	default:
		q.serverAnswers(r, rcode)
	}
	q.close()
}

// unwind closes a query in which a plugin panicked, with what it panicked with, or nil where its goroutine
// ends. CoreDNS recovers from panics, and the record helps to find them. It is called by what is deferred, so
// the stack is still whole when the panic is raised again.
func (q *query) unwind(r *dns.Msg, cause any) {
	q.mu.Lock()
	q.errText = errorText(fmt.Sprintf("panic: %v", cause))
	if q.answeredAt == open {
		q.serverAnswers(r, dns.RcodeServerFailure)
	}
	q.outcome = trace.OutcomeError
	q.close()
	if cause != nil {
		panic(cause)
	}
}

// serverAnswers notes the answer that the server makes of a returned rcode when no plugin wrote one: errorFunc
// in core/dnsserver/server.go.
func (q *query) serverAnswers(r *dns.Msg, rcode int) {
	answer := new(dns.Msg).SetRcode(r, rcode)
	state := request.Request{W: q.writer.ResponseWriter, Req: r}
	state.SizeAndDo(answer)
	q.rcode, q.respSize, q.sentAt = rcode, answer.Len(), q.now()
	q.cache, q.outcome = q.unansweredCache(), trace.OutcomeError
	if rcode == dns.RcodeRefused {
		q.outcome = trace.OutcomeRefused
	}
}

// close closes the record, and those of the refreshes that are done, and hands them over. It is called with the
// lock and releases it.
func (q *query) close() {
	q.closed = true
	complete := []*record{&q.record}
	for _, f := range q.refreshes {
		if f.took == open {
			continue
		}
		f.closed = true
		if f.verifies && (q.answeredAt == open || f.began+f.took <= q.answeredAt) {
			q.merge(f)
		} else {
			complete = append(complete, f)
		}
	}
	q.mu.Unlock()
	if q.top.Span != nothing {
		q.top.Span.Finish()
	}
	for _, rec := range complete {
		rec.handOver()
	}
}

// newRefresh starts a refresh by a cache, which may wait for it to verify stale data. It is called with the lock.
func (q *query) newRefresh(began int64, verifies bool) *record {
	f := &record{began: began, verifies: verifies}
	f.init(q)
	if !q.closed {
		q.refreshes = append(q.refreshes, f)
	}
	return f
}

// merge adds what a refresh did while the cache waited for it.
func (q *query) merge(f *record) {
	for _, h := range f.hops {
		h.index += len(q.hops)
	}
	for _, part := range slices.Concat(f.hops, f.attempts) {
		part.rec = &q.record
	}
	q.hops, q.attempts = append(q.hops, f.hops...), append(q.attempts, f.attempts...)
}

func errorText(s string) string {
	const most = 512 // bytes: it bounds the record
	return s[:min(len(s), most)]
}
