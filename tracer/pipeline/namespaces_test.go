package pipeline

import (
	"fmt"
	"testing"
	"time"
)

// A node on which ten thousand namespaces come and go: every lookup is traced with
// its own, and nothing stays behind.
func TestTenThousandNamespaces(t *testing.T) {
	const namespaces, first, together = 10_000, 1000, 100
	b := newBench(t)
	for i := range namespaces {
		b.lookup(fmt.Sprintf("n%d.example.", i), uint16(i))
		for j := range 4 {
			b.source.packets[len(b.source.packets)-1-j].NetNS = uint32(first + i)
		}
		if i%together == together-1 {
			b.round(20 * time.Millisecond)
		}
	}
	b.round(time.Second)
	b.round(time.Minute)
	if len(b.traces) != namespaces {
		t.Fatalf("%d traces, expected %d", len(b.traces), namespaces)
	}
	seen := map[uint32]string{}
	for _, tr := range b.traces {
		netns := tr.Exchange.Path[0].NetNS
		if want := fmt.Sprintf("n%d.example.", netns-first); tr.QName != want || seen[netns] != "" || len(tr.Upstreams) != 0 {
			t.Fatalf("namespace %d: %s, expected %s; seen before as %q", netns, tr.QName, want, seen[netns])
		}
		seen[netns] = tr.QName
	}
	b.pipeline.publish()
	if c := b.pipeline.Counters(); c.OpenExchanges != 0 || c.PendingTraces != 0 || c.EvictedExchanges+c.EvictedTraces != 0 {
		t.Errorf("open %d, pending %d, evicted %d and %d", c.OpenExchanges, c.PendingTraces, c.EvictedExchanges, c.EvictedTraces)
	}
}
