package assemble

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// countExchanges counts how often each exchange is in traces, by its client's port.
func countExchanges(traces []*trace.Trace) map[uint16]int {
	seen := map[uint16]int{}
	var see func([]trace.Upstream)
	see = func(upstreams []trace.Upstream) {
		for _, u := range upstreams {
			if u.Exchange != nil {
				seen[u.Exchange.ClientPort]++
			}
			for _, ex := range u.Earlier {
				seen[ex.ClientPort]++
			}
			see(u.Upstreams)
		}
	}
	for _, tr := range traces {
		if tr.Exchange != nil {
			seen[tr.Exchange.ClientPort]++
		}
		see(tr.Upstreams)
	}
	return seen
}

// Servers of one namespace ask one another: an exchange that two of them may have
// caused is in one trace, once.
func TestServersInOneNamespace(t *testing.T) {
	within := func(port uint16, start, took time.Duration) *trace.Exchange {
		return exchange("a.example.", serverNS, serverNS, serverIP, upstreamIP, port, start, took)
	}
	traces := assemble(fromClient("a.example.", 1000, 0, 10*time.Millisecond), within(2000, time.Millisecond, 8*time.Millisecond),
		within(2001, 2*time.Millisecond, 2*time.Millisecond), within(2002, 5*time.Millisecond, 2*time.Millisecond))
	seen := countExchanges(traces)
	if len(seen) != 4 || seen[1000] != 1 || seen[2000] != 1 || seen[2001] != 1 || seen[2002] != 1 {
		t.Errorf("exchanges by port, expected each once: %v", seen)
	}
}

// Whatever servers ask each other, wherever they are, and recorded or not: each
// exchange is in one trace, once.
func TestEachExchangeOnce(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 7))
		var records []trace.Record
		count := 2 + random.IntN(8)
		for i := range count {
			from, to := uint32(1+random.IntN(3)), uint32(1+random.IntN(3))
			ex := exchange("a.example.", from, to, serverIP, upstreamIP, uint16(1000+i), time.Duration(random.IntN(12))*time.Millisecond, time.Duration(random.IntN(12))*time.Millisecond)
			records = append(records, ex)
			if random.IntN(3) == 0 {
				records = append(records, record(ex, 20*time.Microsecond, 2*time.Millisecond,
					attempt(1, time.Duration(random.IntN(6))*time.Millisecond, time.Duration(random.IntN(6))*time.Millisecond, trace.OutcomeOK)))
			}
		}
		random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		seen := countExchanges(assemble(records...))
		for i := range count {
			if seen[uint16(1000+i)] != 1 {
				t.Fatalf("seed %d: exchanges by port, expected each of %d once: %v", seed, count, seen)
			}
		}
	}
}
