package dnstrace

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/dns64" // plugins of the tests' Corefiles
	_ "github.com/coredns/coredns/plugin/grpc"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	coreupstream "github.com/coredns/coredns/plugin/pkg/upstream"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/view"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// Names of the tests' own plugins.
const (
	panicName       = "panic"
	unstartableName = "unstartable"
	severalName     = "several"
	earlyName       = "early"  // before dnstrace
	customName      = "custom" // behind cache
)

func init() {
	plugin.Register(panicName, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return panicking{} })
		return nil
	})
	for _, name := range []string{earlyName, customName} {
		plugin.Register(name, func(c *caddy.Controller) error {
			c.Next()
			var behaviour string
			if !c.Args(&behaviour) || behaviours[behaviour] == nil {
				return c.Errf("%s %q: expected one of the tests' behaviours", name, behaviour)
			}
			dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
				return custom{name, next, behaviours[behaviour], behaviour == "bypass"}
			})
			return nil
		})
	}
	plugin.Register(severalName, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler { return several{next} })
		return nil
	})
	plugin.Register(unstartableName, func(c *caddy.Controller) error {
		c.OnStartup(func() error { return errors.New("it does not start") })
		return nil
	})
}

// behaviour is what a plugin of a test does with a query.
type behaviour func(next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error)

// behaviours are those that a Corefile can name.
var behaviours = map[string]behaviour{
	"bypass": func(_ plugin.Handler, _ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		answerA(w, r)
		return dns.RcodeSuccess, nil
	},
	"slow": func(next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return next.ServeDNS(ctx, slowWriter{w}, r)
	},
}

// slowWriter takes its time to send an answer.
type slowWriter struct{ dns.ResponseWriter }

func (w slowWriter) WriteMsg(m *dns.Msg) error {
	time.Sleep(100 * time.Millisecond)
	return w.ResponseWriter.WriteMsg(m)
}

// custom is a plugin that behaves as a test wants.
type custom struct {
	name string
	Next plugin.Handler
	do   behaviour
	// bypass tells that the cache leaves it a zone.
	bypass bool
}

func (c custom) Name() string { return c.name }

func (c custom) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return c.do(c.Next, ctx, w, r)
}

// CacheBypassZones implements cache.ZoneBypasser.
func (c custom) CacheBypassZones() []string {
	if c.bypass {
		return []string{"bypass.org."}
	}
	return nil
}

// panicking is a plugin with a bug.
type panicking struct{}

func (panicking) Name() string { return panicName }

func (panicking) ServeDNS(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
	panic("a bug")
}

// several is a plugin that makes lookups of its own for its name, all at once, and then
// hands the query on.
type several struct{ Next plugin.Handler }

func (several) Name() string { return severalName }

func (p several) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	var lookups sync.WaitGroup
	if state.Name() == severalName+".org." {
		for _, target := range []string{"one.net.", "two.net."} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				lookups.Go(func() {
					if _, err := coreupstream.New().Lookup(ctx, state, target, qtype); err != nil {
						panic(err)
					}
				})
			}
		}
	}
	lookups.Wait()
	return plugin.NextOrFailure(p.Name(), p.Next, ctx, w, r)
}
