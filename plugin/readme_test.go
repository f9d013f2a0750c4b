package dnstrace

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// section returns the part of README.md under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// found returns what the first group of a pattern matches, sorted, each once.
func found(pattern, text string) []string {
	var all []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// README.md has every metric with its labels, and no other.
func TestReadmeHasTheMetrics(t *testing.T) {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		prometheus.DefaultRegisterer.(*prometheus.Registry).Describe(descriptions)
	}()
	name := regexp.MustCompile(`fqName: "(coredns_dnstrace_\w+)".*variableLabels: \{(.*?)\}`)
	var want []string
	for d := range descriptions {
		if m := name.FindStringSubmatch(d.String()); m != nil {
			want = append(want, m[1]+"{"+strings.ReplaceAll(m[2], ",", ", ")+"}")
		}
	}
	slices.Sort(want)
	if got := found("\n\\* `(coredns_dnstrace_[^`]*)`", section(t, "Metrics")); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("README.md has\n%s\nthe plugin has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// README.md has every property, in the Syntax and in words, and no other.
func TestReadmeHasTheProperties(t *testing.T) {
	err := setup(caddy.NewTestController("dns", "dnstrace {\n none\n}"))
	_, list, _ := strings.Cut(fmt.Sprint(err), ": expected ")
	want := strings.FieldsFunc(strings.ReplaceAll(list, " or ", ","), func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(want)
	syntax := section(t, "Syntax")
	for _, pattern := range []string{"\n    ([a-z-]+) ", "\n\\* `([a-z-]+)` "} {
		if got := found(pattern, syntax); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("README.md has %v, the plugin has %v", got, want)
		}
	}
}

// README.md has every metadata key, and no other.
func TestReadmeHasTheMetadata(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	ctx := metadata.ContextWithMetadata(context.Background())
	ctx = new(Dnstrace).Metadata(ctx, request.Request{W: discarding{}, Req: r})
	want := metadata.Labels(ctx)
	slices.Sort(want)
	if got := found("\n\\* `(dnstrace/\\w+)`", section(t, "Metadata")); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("README.md has %v, the plugin has %v", got, want)
	}
}

// The Corefiles of README.md are ones, as CoreDNS wants of its own plugins'.
func TestReadmeCorefiles(t *testing.T) {
	all := found(`(?s)~~~ corefile\n(.*?)~~~`, section(t, "Examples"))
	if len(all) < 5 {
		t.Errorf("%d Corefiles", len(all))
	}
	// Where these are is the machine's matter.
	here := strings.NewReplacer("/var/log/dnstrace", filepath.Clean(t.TempDir()),
		"kubernetes cluster.local\n", "kubernetes cluster.local {\n endpoint http://127.0.0.1:1\n }\n")
	for _, corefile := range all {
		input := caddy.CaddyfileInput{Contents: []byte(here.Replace(corefile)), Filepath: "Corefile", ServerTypeName: "dns"}
		if err := caddy.ValidateAndExecuteDirectives(input, nil, true); err != nil {
			t.Errorf("%v:\n%s", err, corefile)
		}
	}
}
