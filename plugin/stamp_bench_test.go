package dnstrace

import (
	"context"
	"net/netip"
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

// asking is forward without an upstream: it makes the span of an attempt and
// the message, and answers.
type asking struct{ answer *dns.Msg }

func (asking) Name() string { return forwardPlugin }

func (a asking) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if span := ot.SpanFromContext(ctx); span != nil {
		child := span.Tracer().StartSpan("connect", ot.ChildOf(span.Context()))
		child.SetTag(string(otext.PeerAddress), "10.0.0.1:53")
		defer child.Finish()
		_ = ot.ContextWithSpan(ctx, child) // as forward does; nothing is asked with it
	}
	if _, err := r.Pack(); err != nil {
		return dns.RcodeServerFailure, err
	}
	return dns.RcodeSuccess, w.WriteMsg(a.answer)
}

// BenchmarkStamp measures what the options add to a query that is forwarded:
// stamping, and a client that sends the option.
func BenchmarkStamp(b *testing.B) {
	plain := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	edns := plain.Copy().SetEdns0(1232, true)
	context27 := edns.Copy()
	local := &dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: trace.Traceparent{TraceID: trace.TraceID{1}}.Append(nil)}
	context27.IsEdns0().Option = []dns.EDNS0{local}
	all := stampPolicy{all: true}
	list := stampPolicy{to: networks{netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("10.0.0.0/8")}}
	client := networks{netip.MustParsePrefix("127.0.0.0/8")}
	for _, bc := range []struct {
		name   string
		r      *dns.Msg
		stamp  stampPolicy
		accept networks
	}{
		{"off/plain", plain, stampPolicy{}, nil},
		{"off/edns", edns, stampPolicy{}, nil},
		{"off/option", context27, stampPolicy{}, nil},
		{"accept/edns", edns, stampPolicy{}, client},
		{"accept/option", context27, stampPolicy{}, client},
		{"stamp=all/plain", plain, all, nil},
		{"stamp=all/edns", edns, all, nil},
		{"stamp=list/edns", edns, list, nil},
	} {
		b.Run(bc.name, func(b *testing.B) {
			answer := new(dns.Msg).SetReply(bc.r)
			if bc.stamp.all || bc.r != plain {
				answer.SetEdns0(1232, false)
			}
			d := traced(b, asking{answer}, false)
			d.optionCode, d.stamp, d.accept = trace.DefaultOptionCode, bc.stamp, bc.accept
			ctx, w := context.Background(), discarding{}
			b.ReportAllocs()
			for b.Loop() {
				bc.r.Id++ // so that the trace ids differ
				if _, err := d.ServeDNS(ctx, w, bc.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
