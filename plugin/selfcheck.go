package dnstrace

import (
	"context"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// Records rest on what CoreDNS does without having promised it. Where it stops doing so, the log says that
// records have holes.

// nextOrFailure is plugin.NextOrFailure.
type nextOrFailure func(name string, next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error)

// opensSpans reports whether a handler that is called by next finds a span below the caller's.
func opensSpans(next nextOrFailure) (opened bool) {
	q := &query{ident: new(identity)}
	q.record.init(q)
	above := &span{Span: nothing, q: q, rec: &q.record}
	probe := plugin.HandlerFunc(func(ctx context.Context, _ dns.ResponseWriter, _ *dns.Msg) (int, error) {
		s, ok := ot.SpanFromContext(ctx).(*span)
		opened = ok && s.parent == above
		return dns.RcodeSuccess, nil
	})
	_, err := next(pluginName, probe, ot.ContextWithSpan(context.Background(), above), nil, new(dns.Msg))
	return opened && err == nil
}

// check warns at the start of what cannot be observed.
func (d *Dnstrace) check(next nextOrFailure) {
	if _, wrapped := d.Next.(*hop); d.Next != nil && !wrapped {
		log.Warning("this CoreDNS does not let the plugins after dnstrace be wrapped: records have no hops of them")
	}
	if !opensSpans(next) {
		log.Warning("this CoreDNS opens no spans for plugins: records have no hops behind the first plugin that asks upstreams")
	}
}

// checkAttempts warns, once, where forward answered and opened no span for the attempt.
func (d *Dnstrace) checkAttempts(rec *record) {
	if rec.q.answeredBy == forwardPlugin && len(rec.attempts) == 0 && !rec.isRefresh() && !rec.isFull() {
		d.warned.Do(func() {
			log.Warning("this CoreDNS opens no spans for what forward asks: records have no upstream attempts")
		})
	}
}
