package pipeline

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
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
		netns := tr.Exchange.Path.At(0).NetNS
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

// fullTables is how much they may take, in bytes, what is not accounted included.
const fullTables = 64 << 20

// More namespaces ask at once, and nobody answers, than the tables hold: the oldest are
// passed on as they stand and counted, none is lost, and the memory stays within its
// bound.
func TestMoreNamespacesThanTheTableHolds(t *testing.T) {
	const namespaces, together = 60_000, 500
	b := newBench(t)
	traces := 0
	b.pipeline.cfg.Exchange = nil
	b.pipeline.cfg.Trace = func(trace.Record, []byte) { traces++ }
	before := heap()
	for i := range namespaces {
		b.lookup(fmt.Sprintf("open%d.example.", i), uint16(i))
		b.source.packets = b.source.packets[:len(b.source.packets)-2] // no response
		for j := range 2 {
			p := &b.source.packets[len(b.source.packets)-1-j]
			p.NetNS, p.Src = uint32(i), netip.AddrPortFrom(netip.MustParseAddr("10.244.0.4"), uint16(1024+i))
		}
		if i%together == together-1 {
			b.round(20 * time.Millisecond)
		}
	}
	b.round(20 * time.Millisecond)
	b.pipeline.publish()
	c := b.pipeline.Counters()
	if c.EvictedExchanges == 0 || c.EvictedTraces == 0 || c.OpenExchanges+int(c.EvictedExchanges) != namespaces {
		t.Errorf("%d open, %d evicted", c.OpenExchanges, c.EvictedExchanges)
	}
	if grown := heap() - before; grown > fullTables {
		t.Errorf("the tables take %d MiB", grown>>20)
	} else {
		t.Logf("the tables take %d MiB", grown>>20)
	}
	b.round(time.Minute)
	b.round(time.Minute)
	if traces != namespaces {
		t.Errorf("%d traces, expected %d", traces, namespaces)
	}
}

// heap is what is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
