package dnstrace

import (
	"context"
	"errors"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/dns64" // plugins of the tests' Corefiles
	_ "github.com/coredns/coredns/plugin/grpc"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"
)

// Names of the tests' own plugins.
const (
	panicName       = "panic"
	unstartableName = "unstartable"
)

func init() {
	plugin.Register(panicName, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return panicking{} })
		return nil
	})
	plugin.Register(unstartableName, func(c *caddy.Controller) error {
		c.OnStartup(func() error { return errors.New("it does not start") })
		return nil
	})
}

// panicking is a plugin with a bug.
type panicking struct{}

func (panicking) Name() string { return panicName }

func (panicking) ServeDNS(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
	panic("a bug")
}
