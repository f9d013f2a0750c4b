package dnstrace

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/forward"
)

// Every server block is wrapped, however many there are and whatever was only validated before.
func TestManyBlocksAreWrapped(t *testing.T) {
	var corefile strings.Builder
	for i := range maxUnwrapped + 16 {
		fmt.Fprintf(&corefile, "zone%d.org:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n whoami\n}\n", i)
	}
	for range 2 {
		if !supported(t, corefile.String()) {
			t.Fatal("the Corefile is not valid")
		}
	}
	s := start(t, corefile.String())
	blocks := s.instance.Storage[instanceKey{}].(*instance).blocks
	for i, d := range blocks {
		if _, ok := d.Next.(*hop); !ok {
			t.Errorf("block %d: the next handler is a %T", i, d.Next)
		}
	}
	if len(blocks) != maxUnwrapped+16 {
		t.Errorf("%d blocks", len(blocks))
	}
}

// What CoreDNS registers under a plugin's name is the handler itself: others look for its type.
func TestHandlersKeepTheirType(t *testing.T) {
	config := new(dnsserver.Config)
	d := new(Dnstrace)
	var registered []plugin.Handler
	config.AddPlugin(func(next plugin.Handler) plugin.Handler { d.Next = next; return d })
	config.AddPlugin(func(next plugin.Handler) plugin.Handler { return &forward.Forward{Next: next} })
	config.AddPlugin(func(plugin.Handler) plugin.Handler { return panicking{} })
	d.wrap(config.Plugin)
	var h plugin.Handler
	for i := range config.Plugin {
		h = config.Plugin[len(config.Plugin)-1-i](h)
		registered = append(registered, h)
	}
	f, ok := registered[1].(*forward.Forward)
	if _, wrapped := f.Next.(*hop); !ok || !wrapped || registered[0] != (panicking{}) || registered[2] != d {
		t.Errorf("registered %T %T %T", registered[0], registered[1], registered[2])
	}
}
