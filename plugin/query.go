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

// The record of a query, or of a refresh that it set off, changes hands twice:
//
//  1. Until it is closed, whoever has a span, a context or the writer of the query may change it, with the lock of
//     the query. Later changes, by a plugin that goes on after it returned, are ignored.
//  2. The goroutine that closed it completes, counts and samples it.
//  3. After push it is read only.
//
// A query is closed when its plugins have returned, a refresh when it is done, but not before its query. A refresh
// for which the cache waited becomes part of its query then.

// query is one query: what is known when it arrives, its answer, and what CoreDNS did for it. Times are in
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

// begin starts a query. It returns nil for one without a record of its own: outside the zones, or part of another
// query.
func (d *Dnstrace) begin(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *query {
	i := identifiedIn(ctx)
	if d.Next == nil || i.nested || spanOf(ctx) != nil || len(r.Question) == 0 || d.zones.match(r.Question[0].Name) == "" {
		return nil
	}
	q := &query{plugin: d, ident: i.identity, metrics: d.metricsOf(ctx), size: r.Len(), opcode: r.Opcode, rcode: notSent, answeredAt: open}
	q.record.init(q)
	if q.ident == nil || q.ident.plugin != d { // of a server block whose view did not match
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

// end closes a query whose plugins have returned.
func (q *query) end(r *dns.Msg, rcode int, err error) {
	q.mu.Lock()
	if err != nil {
		q.errText = errorText(err.Error())
	}
	switch {
	case q.answeredAt != open:
		if err != nil { // rewrite answers for the plugins after it, and returns their error
			q.outcome = trace.OutcomeError
		}
	case q.outcome == trace.OutcomeNoResponse: // writing it failed
	case plugin.ClientWrite(rcode):
		q.outcome, q.cache = trace.OutcomeNoResponse, q.cacheStatus(false, nil)
	default:
		q.serverAnswers(r, rcode)
	}
	q.close()
}

// unwind closes a query in which a plugin panicked with cause, which is nil if its goroutine exits. CoreDNS
// recovers from panics and answers SERVFAIL, so the record helps to find them. The deferred function calls it, so
// the stack is still whole when it panics again.
func (q *query) unwind(r *dns.Msg, cause any) {
	q.end(r, dns.RcodeServerFailure, fmt.Errorf("panic: %v", cause))
	if cause != nil {
		panic(cause)
	}
}

// serverAnswers records the answer that the server makes of a returned rcode if no plugin wrote one: errorFunc in
// core/dnsserver/server.go.
func (q *query) serverAnswers(r *dns.Msg, rcode int) {
	answer := new(dns.Msg).SetRcode(r, rcode)
	state := request.Request{W: q.writer.ResponseWriter, Req: r}
	state.SizeAndDo(answer)
	q.rcode, q.respSize, q.sentAt = rcode, answer.Len(), q.now()
	q.cache, q.outcome = q.cacheStatus(false, nil), trace.OutcomeError
	if rcode == dns.RcodeRefused {
		q.outcome = trace.OutcomeRefused
	}
}

// close closes the record and those of finished refreshes, and completes them. The caller holds the lock; close
// releases it.
func (q *query) close() {
	q.closed = true
	closed := []*record{&q.record}
	for _, f := range q.refreshes {
		if f.took == open {
			continue
		}
		f.closed = true
		if f.verifies && (q.answeredAt == open || f.began+f.took <= q.answeredAt) {
			q.merge(f)
		} else {
			closed = append(closed, f)
		}
	}
	q.mu.Unlock()
	if q.top.Span != nothing {
		q.top.Span.Finish()
	}
	for _, rec := range closed {
		rec.complete()
	}
}

// newRefresh starts a refresh by a cache, which may wait for it to verify stale data. The caller holds the lock.
func (q *query) newRefresh(began int64, verifies bool) *record {
	f := &record{began: began, verifies: verifies}
	f.init(q)
	if !q.closed {
		q.refreshes = append(q.refreshes, f)
	}
	return f
}

// merge adds the hops and attempts of a refresh for which the cache waited.
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
