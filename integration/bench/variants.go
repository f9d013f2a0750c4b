package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// variant is one way to run CoreDNS.
type variant struct {
	name      string
	directive string // what the server block has more than vanilla
	args      []string
	records   string // the file that its records go to
	all       bool   // it records every query
	binary    string
	env       []string // beside ours
}

// vanilla is what the others are compared with.
const (
	vanilla     = "vanilla"
	noopName    = "no-op plugin" // that makes room on the stack as dnstrace does
	logName     = "log"
	tracedName  = "dnstrace"
	blockedName = "dnstrace, blocked"
	sampledName = "sample 1 %"
	patchedName = "vanilla, patched"
)

// variants returns all of them, vanilla first: where CoreDNS is compared with a patched one, only these
// two. CoreDNS's standard output goes to a file, as the records do.
func (b *bench) variants() []variant {
	if b.cfg.patched != "" {
		return []variant{{name: vanilla, binary: b.cfg.binary}, {name: patchedName, binary: b.cfg.patched}}
	}
	all := []variant{
		{name: vanilla},
		{name: logName, directive: "log"},
		{name: "log JSON", directive: "log", args: []string{"-log-format=json"}},
		{name: "dnstap", directive: "dnstap " + b.tap},
		b.traced(tracedName, "", true),
		{name: blockedName, directive: b.blocked.directive()},
		b.traced(sampledName, sampled, false),
	}
	for i := range all {
		all[i].binary = b.cfg.binary
	}
	if b.cfg.noop != "" {
		all = append(all, variant{name: noopName, directive: "noop", binary: b.cfg.noop})
	}
	if b.cfg.before != "" {
		for _, v := range []variant{b.traced("before", "", true), b.traced("before 1 %", sampled, false)} {
			v.binary = b.cfg.before
			all = append(all, v)
		}
	}
	return all
}

// sampled makes dnstrace record one ordinary lookup in a hundred.
const sampled = "\n sample 0.01"

// traced is a variant with dnstrace and an option of it.
func (b *bench) traced(name, option string, all bool) variant {
	records := filepath.Join(b.dir, "records."+strings.ReplaceAll(name, " ", "-")+".jsonl")
	return variant{name: name, directive: "dnstrace {\n output file " + records + option + "\n }", records: records, all: all}
}

// usual are the plugins of the Corefile that comes with Kubernetes, as far as
// they see queries. They matter even to a plugin that is not among them: the
// goroutine of a query copies its stack when it gets too deep, and with cache
// and forward alone it stays just below that, so that any plugin more pays for
// the copy. Of prometheus the allocations are read.
const usual = "errors\n prometheus 127.0.0.1:%d\n loadbalance"

// corefile writes the Corefile of v and returns its path. Only one zone is
// cached, so that the queries for others are all forwarded.
func (b *bench) corefile(v variant, port, metrics int) (string, error) {
	var c bytes.Buffer
	chain := fmt.Sprintf(usual, metrics)
	if b.cfg.minimal {
		chain = ""
	}
	fmt.Fprintf(&c, ".:%d {\n bind 127.0.0.1\n %s\n %s\n cache 3600 %s\n forward . %s\n}\n", port, chain, v.directive, cachedZone, b.upstream)
	path := filepath.Join(b.dir, "Corefile."+v.name)
	return path, os.WriteFile(path, c.Bytes(), 0o600)
}
