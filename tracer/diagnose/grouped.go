package diagnose

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// grouped collects findings of a lookup, and makes one of those about the same thing, with the
// evidence of all: a server that is asked again and again has one cause. The zero value is
// empty.
type grouped[K comparable] struct {
	findings []trace.Finding
	first    map[K]int // its index in findings
	times    map[K]int
}

// add adds a finding about k.
func (g *grouped[K]) add(k K, f trace.Finding) {
	if g.times == nil {
		g.first, g.times = map[K]int{}, map[K]int{}
	}
	if g.times[k]++; g.times[k] > 1 {
		all := &g.findings[g.first[k]]
		all.Evidence = append(all.Evidence, f.Evidence...)
		return
	}
	g.first[k] = len(g.findings)
	g.findings = append(g.findings, f)
}

// reported returns the findings. Those that were added several times say how often, in the words
// of a format.
func (g *grouped[K]) reported(often string) []trace.Finding {
	for k, n := range g.times {
		if f := &g.findings[g.first[k]]; n > 1 {
			f.Summary = strings.TrimSuffix(f.Summary, ".") + fmt.Sprintf(often, n) + "."
			f.Evidence = shortened(f.Evidence)
		}
	}
	return g.findings
}
