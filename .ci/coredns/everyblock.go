package dnsserver

import (
	"os"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// everyBlock puts dnstrace, with the options in DNSTRACE_EVERY_BLOCK, into every server block that has
// a plugin: CoreDNS's own tests have Corefiles without it.
func everyBlock(blocks []caddyfile.ServerBlock) error {
	options := os.Getenv("DNSTRACE_EVERY_BLOCK")
	if options == "" {
		return nil
	}
	const directive = "dnstrace"
	if !slices.Contains(Directives, directive) {
		Directives = slices.Insert(Directives, slices.Index(Directives, "dnstap")+1, directive)
	}
	parsed, err := caddyfile.Parse(directive, strings.NewReader(". {\n"+directive+" {\n"+options+"\n}\n}"), nil)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if len(b.Tokens) > 0 {
			b.Tokens[directive] = parsed[0].Tokens[directive]
		}
	}
	return nil
}
