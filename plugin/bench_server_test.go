package dnstrace

import (
	"context"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	anyplugin "github.com/coredns/coredns/plugin/any"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/miekg/dns"
)

// BenchmarkCachedAnswer measures a whole query to CoreDNS, but for the network,
// that the cache behind another plugin answers, with and without ours before them.
func BenchmarkCachedAnswer(b *testing.B) {
	r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	m := new(dns.Msg).SetReply(r)
	rr, err := dns.NewRR("www.example.org. 3600 IN A 192.0.2.1")
	if err != nil {
		b.Fatal(err)
	}
	m.Answer = []dns.RR{rr}
	cached := func() plugin.Handler {
		c := cache.New()
		c.Next = answering{m}
		return anyplugin.Any{Next: c} // in the place of loadbalance, which cannot be made from outside
	}
	for _, bc := range []struct {
		name    string
		handler plugin.Handler
	}{
		{"vanilla", cached()},
		{"sampled", traced(b, cached(), true)},
		{"dnstrace", traced(b, cached(), false)},
	} {
		config := &dnsserver.Config{Zone: ".", Plugin: []plugin.Plugin{func(plugin.Handler) plugin.Handler { return bc.handler }}}
		server, err := dnsserver.NewServer("dns://:0", []*dnsserver.Config{config})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bc.name, func(b *testing.B) {
			ctx, w := context.WithValue(context.Background(), dnsserver.Key{}, server), discarding{}
			b.ReportAllocs()
			for b.Loop() {
				r.Id++ // so that the trace ids differ
				query := *r
				server.ServeDNS(ctx, w, &query)
			}
		})
	}
}
