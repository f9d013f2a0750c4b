package dnstrace

import (
	"context"
	"errors"
	"testing"

	"github.com/coredns/coredns/plugin"
	anyplugin "github.com/coredns/coredns/plugin/any"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/dns64"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// nesting is the server, as dns64 asks it for another lookup of the same query.
type nesting struct{ ident *identity }

func (n *nesting) Lookup(ctx context.Context, _ request.Request, _ string, _ uint16) (*dns.Msg, error) {
	n.ident = nestedIn(ctx)
	return new(dns.Msg), nil
}

// The identity that a lookup of an ordinary plugin shares stays the query's own,
// whatever is recorded afterwards.
func TestNestedIdentityIsKept(t *testing.T) {
	c := cache.New()
	c.Next = empty{}
	server := new(nesting)
	d := traced(t, &dns64.DNS64{Next: c, Upstream: server, AllowIPv4: true}, false)
	serve := func(id uint16) *identity {
		r := new(dns.Msg).SetQuestion("example.org.", dns.TypeAAAA)
		r.Id = id
		if _, err := d.ServeDNS(context.Background(), discarding{}, r); err != nil {
			t.Fatal(err)
		}
		return server.ident
	}
	serve(1) // fills the cache
	kept := serve(2)
	kept.compute()
	id := kept.traceID
	serve(3)
	if kept.id != 2 || kept.traceID != id {
		t.Errorf("the identity that was kept is query %d's now", kept.id)
	}
}

// empty is a plugin that knows no record of the type that is asked for.
type empty struct{}

func (empty) Name() string { return "empty" }

func (empty) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg).SetReply(r)
	soa, err := dns.NewRR("example.org. 60 IN SOA ns.example.org. root.example.org. 1 60 60 60 60")
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	m.Ns = []dns.RR{soa}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// Sampling leaves out a query that was answered, so the clock is not read when its
// plugins return; if one of them then reports an error, the query is recorded
// all the same, and says that their durations are unknown.
func TestErrorAfterAnswerLeftOut(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeANY)
	d := traced(t, anyplugin.Any{}, false)
	none := 0.0
	d.policy.sample = &none
	outer := d.Next
	d.Next = plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		s := ctx.Value(hopKey{}).(*span)
		c := s.startHop(ctx, &hop{name: "chaos"}, r)
		rcode, _ := outer.ServeDNS(c, w, r)
		c.span.finish()
		return rcode, errors.New("afterwards")
	})
	f := d.begin(context.Background(), discarding{}, r)
	rcode, err := d.Next.ServeDNS(&f.first.ctx, &f.writer, r)
	rec := f.first.rec
	if rec.mayBeWanted() {
		t.Fatal("a query that was answered is wanted at a rate of 0")
	}
	f.shared, d.chain.refreshes = true, true // keeps the recording for us
	f.finish(rcode, err)
	var b builder
	b.load(rec)
	if !rec.failed() || b.hops[0].Duration == nil || b.hops[1].Duration != nil {
		t.Errorf("failed: %t; hops: %+v", rec.failed(), b.hops)
	}
}
