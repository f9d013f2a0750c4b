package dnstrace

import (
	"slices"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/forward"
)

// What CoreDNS registers under a plugin's name is the handler itself, which calls its next one through a hop: others
// look for its type.
func TestHandlersKeepTheirType(t *testing.T) {
	c := caddy.NewTestController("dns", "dnstrace")
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	config := dnsserver.GetConfig(c)
	f := new(forward.Forward)
	config.AddPlugin(func(next plugin.Handler) plugin.Handler { f.Next = next; return f })
	config.AddPlugin(func(plugin.Handler) plugin.Handler { return panicking{} })
	var h plugin.Handler
	var registered []plugin.Handler
	for _, make := range slices.Backward(config.Plugin) {
		h = make(h)
		registered = append(registered, h)
	}
	d, ok := h.(*Dnstrace)
	if !ok || registered[0] != (panicking{}) || registered[1] != f {
		t.Fatalf("registered %T %T %T", registered[0], registered[1], registered[2])
	}
	first, ok := d.Next.(*hop)
	if !ok || first.next != f {
		t.Fatalf("the next handler is a %T", d.Next)
	}
	if second, ok := f.Next.(*hop); !ok || second.next != (panicking{}) {
		t.Errorf("after forward comes a %T", f.Next)
	}
}
