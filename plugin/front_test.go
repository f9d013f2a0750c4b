package dnstrace

import (
	"context"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin"
	anyplugin "github.com/coredns/coredns/plugin/any"
	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
)

// keeping is a plugin that goes on with a query after it has returned.
type keeping struct {
	next plugin.Handler
	late func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg)
}

func (k keeping) Name() string { return "keeping" }

func (k keeping) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	rcode, err := plugin.NextOrFailure(k.Name(), k.next, ctx, w, r)
	k.late(ctx, w, r)
	return rcode, err
}

// What a plugin keeps of a query, and uses when that is over, changes nothing in
// the record of the query that is made with the same memory.
func TestKeptFront(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	m := new(dns.Msg).SetReply(r)
	var late []func()
	next := keeping{answering{m}, func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
		s := ot.SpanFromContext(ctx)
		late = append(late, func() {
			ot.ContextWithSpan(ctx, s.Tracer().StartSpan("late", ot.ChildOf(s.Context())))
			s.SetTag(peerAddress, "192.0.2.1:53")
			s.Finish()
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
			if nestedIn(ctx) != nil {
				t.Error("a query that is over still has an identity to share")
			}
		})
	}}
	d := traced(t, next, false)
	serve := func() {
		r := r.Copy()
		r.Id = dns.Id()
		if _, err := d.ServeDNS(context.Background(), discarding{}, r); err != nil {
			t.Fatal(err)
		}
	}
	serve()
	f := d.begin(context.Background(), discarding{}, r) // with the memory of the first
	var wg sync.WaitGroup
	for _, use := range late {
		wg.Go(use)
	}
	wg.Wait()
	rec := f.first.rec
	rec.mu.Lock()
	if len(rec.spans) != 1 || rec.attempts != 0 || rec.rcode != notSent || f.first.end != open {
		t.Errorf("%d spans, %d attempts, rcode %d, first span ends at %d: what was kept changed another query", len(rec.spans), rec.attempts, rec.rcode, f.first.end)
	}
	rec.mu.Unlock()
	f.finish(dns.RcodeServerFailure, nil)
}

// A recording is used again, unless a cache may work in the background.
func TestRecycle(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	d := traced(t, answering{new(dns.Msg).SetReply(r)}, false)
	if !readChain(d.Next).refreshes {
		t.Error("a plugin that is not known may have a cache behind it")
	}
	for _, refreshes := range []bool{false, true} {
		d.chain.refreshes = refreshes
		f := d.begin(context.Background(), discarding{}, r)
		rec := f.first.rec
		before := rec.use
		f.finish(dns.RcodeSuccess, nil)
		if recycled := rec.use != before; recycled == refreshes {
			t.Errorf("refreshes %t: recycled %t", refreshes, recycled)
		}
	}
}

// A front is used again only where none but the ordinary plugins saw it.
func TestRecycleFront(t *testing.T) {
	d := traced(t, anyplugin.Any{Next: answering{new(dns.Msg)}}, false)
	serve := func(ctx context.Context, qtype uint16) (f *front, spare *front) {
		r := new(dns.Msg).SetQuestion("example.org.", qtype)
		f = d.begin(ctx, discarding{}, r)
		rec := f.first.rec
		rcode, err := d.Next.ServeDNS(&f.first.ctx, &f.writer, r)
		f.finish(rcode, err)
		return f, rec.spare
	}
	if f, spare := serve(context.Background(), dns.TypeANY); spare != f {
		t.Error("answered by any: the front is not used again")
	}
	if _, spare := serve(context.Background(), dns.TypeA); spare != nil {
		t.Error("answered by a plugin that may keep it: the front is used again")
	}
	other := mocktracer.New().StartSpan("other")
	if _, spare := serve(ot.ContextWithSpan(context.Background(), other), dns.TypeANY); spare != nil {
		t.Error("seen by another tracer: the front is used again")
	}
}
