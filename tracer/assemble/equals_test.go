package assemble

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Fifty clients ask for one name at about one time, and one part in ten was not
// observed: an exchange, a record, an upstream exchange. Whatever is joined as
// exact is right, in whatever order the records come; the ports are the truth.
func TestNeverAWrongExact(t *testing.T) {
	exact, apart := 0, 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		var records []trace.Record
		const clients = 50
		spread := []int{1, 20, 400}[seed%3] // how far they are apart, in ms
		for i := range clients {
			start := time.Duration(rng.IntN(spread*1000)) * time.Microsecond
			legTook := time.Duration(200+rng.IntN(3000)) * time.Microsecond
			queue := time.Duration(rng.IntN(300)) * time.Microsecond
			port := uint16(1000 + 2*i)
			ex := fromClient("same.example.", port, start, legTook+queue+600*time.Microsecond)
			q := record(ex, queue+20*time.Microsecond, legTook+500*time.Microsecond,
				attempt(1, 100*time.Microsecond, legTook+300*time.Microsecond, trace.OutcomeOK))
			q.ServerIP, q.ServerPort = ex.ServerIP, ex.ServerPort
			leg := toUpstream("same.example.", port+1, start+queue+250*time.Microsecond, legTook)
			unseen := rng.IntN(30)
			for part, r := range []trace.Record{ex, q, leg} {
				if part != unseen {
					records = append(records, r)
				}
			}
		}
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		for _, tr := range assemble(records...) {
			if tr.Exchange != nil && tr.Query != nil && tr.Exchange.ClientPort != tr.Query.ClientPort {
				t.Fatalf("seed %d: the lookup from port %d has the record of that from %d", seed, tr.Exchange.ClientPort, tr.Query.ClientPort)
			}
			for _, u := range tr.Upstreams {
				client := tr.Query
				switch {
				case u.Join == trace.JoinExact && u.Exchange.ClientPort != client.ClientPort+1:
					t.Fatalf("seed %d: the lookup from port %d has the upstream exchange from %d", seed, client.ClientPort, u.Exchange.ClientPort)
				case u.Join == trace.JoinExact:
					exact++
				case u.Join == trace.JoinNone && !strings.Contains(strings.Join(tr.Gaps, "\n"), "attempt 1"):
					t.Fatalf("seed %d: not joined, and not a word: %v", seed, tr.Gaps)
				case u.Join == trace.JoinNone:
					apart++
				}
			}
		}
	}
	t.Logf("%d joined exactly, %d not", exact, apart)
	if exact == 0 || apart == 0 {
		t.Error("the test shows nothing")
	}
}

// A record that comes after what it belongs to was passed on: that is passed on once
// more, whole.
func TestLateRecord(t *testing.T) {
	records := miss("a.example.", 1000, 0)
	a := New(Config{})
	a.Add(records[0])
	a.Add(records[2])
	early := a.Advance(epoch.Add(2500 * time.Millisecond))
	a.Add(records[1])
	late := a.Flush()
	if len(early) != 1 || early[0].Upstreams[0].Join != trace.JoinInferred || early[0].Replaces {
		t.Fatalf("%d early: %+v", len(early), early)
	}
	if len(late) != 1 || late[0].Query == nil || late[0].Exchange == nil || !late[0].Replaces || len(late[0].Upstreams) != 1 ||
		late[0].Upstreams[0].Join != trace.JoinExact || late[0].TraceID != early[0].TraceID || !late[0].Time.Equal(early[0].Time) {
		t.Fatalf("%d late: %+v", len(late), late)
	}
}

// What is passed on early says so.
func TestEvictedSaysSo(t *testing.T) {
	a := New(Config{MaxBytes: 1})
	a.Add(miss("a.example.", 1000, 0)[2])
	a.Add(miss("b.example.", 2000, 0)[2])
	done := a.Advance(epoch)
	if len(done) != 2 || len(done[0].Gaps) != 1 || !strings.Contains(done[0].Gaps[0], "passed on before") {
		t.Errorf("%d done: %+v", len(done), done)
	}
}
