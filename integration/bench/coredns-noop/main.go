// Command coredns-noop is CoreDNS with a plugin in the place of dnstrace that does nothing but
// make room on the stack as dnstrace does, and hand the query on. Beside it, the benchmark
// shows what recording costs, without what more room saves.
package main

import (
	"context"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/core/plugin" // all stock plugins
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

const name = "noop"

func main() {
	at := slices.Index(dnsserver.Directives, "dnstap") + 1
	dnsserver.Directives = slices.Insert(dnsserver.Directives, at, name)
	plugin.Register(name, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler { return noop{next} })
		return nil
	})
	coremain.Run()
}

type noop struct{ next plugin.Handler }

// Name implements plugin.Handler.
func (noop) Name() string { return name }

// ServeDNS implements plugin.Handler.
func (n noop) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	growStack(0)
	return plugin.NextOrFailure(name, n.next, ctx, w, r)
}

// stackRoom is that of dnstrace (plugin/dnstrace.go), which a test compares.
const stackRoom = 6656

//go:noinline
func growStack(touched int) byte {
	if touched == 0 {
		return 0
	}
	var room [stackRoom]byte
	room[touched]++
	return room[0]
}
