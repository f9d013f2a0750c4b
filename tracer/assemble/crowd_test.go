package assemble

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Fifty clients ask for one name at once on a machine that is busy: their server's threads
// wait for a processor at every step, so what was begun first is not sent first, nor over
// first. All was observed, so each lookup has one upstream exchange, whichever it is.
func TestCrowdOnABusyMachine(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 12))
		most := []int{1, 10, 50}[seed%3] // ms that a thread waits
		waits := func() time.Duration { return time.Duration(rng.IntN(most*1000)) * time.Microsecond }
		var records []trace.Record
		const clients = 50
		for i := range clients {
			port := uint16(1000 + 2*i)
			start := time.Duration(i) * 20 * time.Microsecond
			begin := 20*time.Microsecond + waits() // of the record, since the query
			at := waits()                          // of the attempt, since the record
			sent := waits()
			took := 20*time.Millisecond + waits()
			read := waits()
			attempted := sent + took + read
			ex := fromClient("same.example.", port, start, begin+at+attempted+waits()+time.Microsecond)
			q := record(ex, begin, at+attempted+10*time.Microsecond, attempt(1, at, attempted, trace.OutcomeOK))
			records = append(records, ex, q, toUpstream("same.example.", port+1, start+begin+at+sent, took))
		}
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		taken := map[uint16]bool{}
		traces := assemble(records...)
		if len(traces) != clients {
			t.Errorf("seed %d: %d traces", seed, len(traces))
		}
		for _, tr := range traces {
			if tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil {
				t.Errorf("seed %d: not joined: %s", seed, outline(tr))
				continue
			}
			u := tr.Upstreams[0].Exchange
			if taken[u.ClientPort] {
				t.Errorf("seed %d: %d twice", seed, u.ClientPort)
			}
			taken[u.ClientPort] = true
		}
	}
}
