// Command coredns is CoreDNS with all its plugins, and dnstrace at its place in
// their order.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/core/plugin" // all stock plugins
	"github.com/coredns/coredns/coremain"

	_ "github.com/dnstrace/dnstrace/plugin" // dnstrace
)

// after is the directive that dnstrace follows: from there on log, errors and
// dnstap before it still see the client's own message, and the trace plugin has
// started its span.
const after = "dnstap"

func main() {
	directives, err := insert(dnsserver.Directives)
	if err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		os.Exit(1)
	}
	dnsserver.Directives = directives
	coremain.Run()
}

// insert puts dnstrace at its place in the order of the plugins.
func insert(directives []string) ([]string, error) {
	i := slices.Index(directives, after)
	if i < 0 {
		return nil, fmt.Errorf("this CoreDNS has no %q directive to put dnstrace after: build with CoreDNS 1.13 to 1.15, or put dnstrace into its plugin.cfg", after)
	}
	return slices.Insert(slices.Clone(directives), i+1, "dnstrace"), nil
}
