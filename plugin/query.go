package dnstrace

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/request"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// Who owns the record of a query:
//
//  1. While the query is in flight, the query: everybody who has a span, a context or the
//     writer of it may change the record, with the lock of the query.
//  2. Then close takes it out of the query, and the goroutine that closes has it alone: it
//     judges, counts and samples it. Who comes later, because a plugin goes on after it
//     returned, finds no record in the query, and changes nothing.
//  3. Then push hands it to the writers of the outputs. From here on nobody changes it.
//
// The record of a refresh goes the same way: the refresh has it while it works, with the lock
// of its query. Where the cache waited for it, because it had stale data verified and that was
// done before the answer was sent, its part is the query's.

// query is a query in flight, and what plugins may keep of it when it is over.
type query struct {
	plugin *Dnstrace
	ident  *identity

	mu        sync.Mutex
	rec       *record    // nil: the query is closed
	closed    *record    // then it is this, which nobody changes any more
	attempts  int        // of the query and its refreshes
	refreshes []*refresh // that started before the query was closed
	calls     int        // of inline that are used

	writer responseWriter
	top    call
	inline [2]call
}

// begin starts a query, or returns nil for one that makes no record of its own: it is not in
// our zones, or part of another one.
func (d *Dnstrace) begin(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *query {
	ident, nested := identityOf(ctx)
	if d.Next == nil || !d.records(r) || nested || spanOf(ctx) != nil {
		return nil
	}
	rec := new(record)
	if ident == nil || ident.plugin != d { // of a server block whose view did not match
		ident = &rec.own
		ident.init(d, w, r)
	}
	rec.plugin, rec.ident, rec.metrics = d, ident, d.metricsOf(ctx)
	rec.hops, rec.attempts = rec.inlineHops[:0], rec.inlineAttempts[:0]
	rec.size, rec.opcode, rec.rcode = r.Len(), r.Opcode, notSent
	rec.server, _ = address(w.LocalAddr())
	rec.answeredAt = notAnswered
	var size uint16
	if opt := r.IsEdns0(); opt != nil {
		size, rec.do = opt.UDPSize(), opt.Do()
	}
	rec.bufsize = edns.Size(ident.proto(), size)
	q := &query{plugin: d, ident: ident, rec: rec}
	q.writer = responseWriter{w, q}
	q.top.span = span{Span: nothing, q: q, name: pluginName, hop: none, attempt: none}
	q.top.ctx = callContext{Context: ctx, span: &q.top.span, hidden: true}
	if other := ot.SpanFromContext(ctx); other != nil {
		// What plugin.NextOrFailure does for the plugins after this one.
		q.top.span.Span = other.Tracer().StartSpan(d.Next.Name(), ot.ChildOf(other.Context()))
		q.top.ctx.other = q.top.span.Span
	}
	return q
}

// now returns the nanoseconds since the query's time.
func (q *query) now() int64 { return int64(time.Since(q.ident.time)) }

// end closes a query whose plugins returned.
func (q *query) end(r *dns.Msg, rcode int, err error) {
	q.mu.Lock()
	rec := q.rec
	if err != nil {
		rec.errText = errorText(err.Error())
	}
	switch {
	case rec.answeredAt != notAnswered: // the writer noted the rest
		if err != nil { // what was written says so: rewrite answers for the plugins after it
			rec.outcome = trace.OutcomeError
		}
	case rec.outcome == trace.OutcomeNoResponse: // writing it failed
	case plugin.ClientWrite(rcode):
		rec.outcome = trace.OutcomeNoResponse
		rec.cache = rec.unansweredCache()
	default:
		q.serverAnswers(r, rcode)
	}
	q.close()
}

// endPanic closes a query in which a plugin panicked.
func (q *query) endPanic(r *dns.Msg, cause any) {
	q.mu.Lock()
	rec := q.rec
	rec.errText = errorText(fmt.Sprintf("panic: %v", cause))
	if rec.answeredAt == notAnswered {
		q.serverAnswers(r, dns.RcodeServerFailure)
	}
	rec.outcome = trace.OutcomeError
	q.close()
}

// serverAnswers notes the answer that the server makes of a returned rcode when
// no plugin wrote one: errorFunc in core/dnsserver/server.go.
func (q *query) serverAnswers(r *dns.Msg, rcode int) {
	answer := new(dns.Msg).SetRcode(r, rcode)
	state := request.Request{W: q.writer.ResponseWriter, Req: r}
	state.SizeAndDo(answer)
	rec := q.rec
	rec.rcode, rec.respSize = rcode, answer.Len()
	rec.outcome = trace.OutcomeError
	if rcode == dns.RcodeRefused {
		rec.outcome = trace.OutcomeRefused
	}
	rec.cache = rec.unansweredCache()
	rec.sentAt = q.now()
}

// close takes the record out of the query, and hands it over with those of the refreshes that
// are done. It is called with the lock and releases it.
func (q *query) close() {
	rec := q.rec
	q.rec, q.closed = nil, rec
	answered := rec.answeredAt
	if answered == notAnswered {
		answered = q.now()
	}
	var done []*record
	for _, f := range q.refreshes {
		switch {
		case f.doneAt == open:
		case f.doneAt <= answered && rec.settings(f.above).verifies:
			rec.merge(f.rec, f.above)
		default:
			done = append(done, f.take(rec))
		}
	}
	q.mu.Unlock()
	if q.top.span.Span != nothing {
		q.top.span.Span.Finish()
	}
	rec.handOver()
	for _, r := range done {
		r.handOver()
	}
}

// refresh is work of a cache in the background, which a query set off.
type refresh struct {
	rec    *record // nil: it is done
	above  int     // the hop of the cache in the record of the query
	doneAt int64   // nanoseconds since the query's time
}

// newRefresh starts a refresh whose first hop began at a time. It is called with the lock.
func (q *query) newRefresh(above int, began int64) *refresh {
	rec := &record{plugin: q.plugin, ident: q.ident, began: began}
	rec.hops, rec.attempts = rec.inlineHops[:0], rec.inlineAttempts[:0]
	f := &refresh{rec: rec, above: above, doneAt: open}
	if q.rec != nil {
		q.refreshes = append(q.refreshes, f)
	}
	return f
}

// take takes the record out of a refresh that a query with the given record set off. It is
// called with the lock.
func (f *refresh) take(of *record) *record {
	rec := f.rec
	f.rec, rec.origin, rec.took = nil, of, f.doneAt-rec.began
	return rec
}

func errorText(s string) string {
	const most = 512 // bytes: it bounds the record
	if len(s) > most {
		s = s[:most]
	}
	return s
}
