//go:build !race

package dnstrace

import (
	"context"
	"testing"

	"github.com/coredns/coredns/plugin"
	anyplugin "github.com/coredns/coredns/plugin/any"

	"github.com/miekg/dns"
)

// What the plugin adds to the allocations of a query, recorded or not: the query, and the record that
// goes to the writers. Where forward asks, the span of the attempt comes on top, and what
// forward does with a span, which it does only if it finds one. A zone costs nothing.
func TestAllocations(t *testing.T) {
	answer := new(dns.Msg)
	for _, tc := range []struct {
		name   string
		next   plugin.Handler
		before []plugin.Plugin
		qtype  uint16
		want   float64
	}{
		{"ordinary", answering{answer}, []plugin.Plugin{beforeAny}, dns.TypeANY, 2},
		{"other", answering{answer}, nil, dns.TypeA, 2},
		{"forward", asking{answer}, nil, dns.TypeA, 6},
		{"forward behind an ordinary one", asking{answer}, []plugin.Plugin{beforeAny}, dns.TypeA, 6},
	} {
		r := new(dns.Msg).SetQuestion("www.example.org.", tc.qtype)
		plain := tc.next
		for _, m := range tc.before {
			plain = m(plain)
		}
		vanilla := perQuery(t, plain, r)
		for _, sampled := range []bool{false, true} {
			d := traced(t, tc.next, sampled, tc.before...)
			d.zones, d.serverZones = []string{"example.org."}, []string{"example.org."}
			if got := perQuery(t, d, r) - vanilla; got > tc.want {
				t.Errorf("%s, sampled %v: %v allocations a query, want at most %v", tc.name, sampled, got, tc.want)
			}
		}
	}
}

// A record that is lost, since its output takes none, costs no more.
func TestLostRecordAllocations(t *testing.T) {
	sink := newStuckSink()
	o := newOutput(outputConfig{kind: outputFile, path: t.Name()}, sink, 1)
	defer o.flush()
	defer close(sink.let)
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeANY)
	d := traced(t, anyplugin.Any{}, false)
	d.sample, d.outputs = 1, []*output{o}
	if got := perQuery(t, d, r) - perQuery(t, anyplugin.Any{}, r); got > 2 {
		t.Errorf("%v allocations a query", got)
	}
	if dropped(o.config.String(), causeQueueFull) < 1000 {
		t.Error("no record was lost")
	}
}

// perQuery returns the allocations of a handler for a query.
func perQuery(t *testing.T, h plugin.Handler, r *dns.Msg) float64 {
	t.Helper()
	ctx, w := context.Background(), discarding{}
	return testing.AllocsPerRun(1000, func() {
		r.Id++
		if _, err := h.ServeDNS(ctx, w, r); err != nil {
			t.Fatal(err)
		}
	})
}
