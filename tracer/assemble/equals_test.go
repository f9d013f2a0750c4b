package assemble

import (
	"math/rand/v2"
	"slices"
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
			upstreamTook := time.Duration(200+rng.IntN(3000)) * time.Microsecond
			queue := time.Duration(rng.IntN(300)) * time.Microsecond
			port := uint16(1000 + 2*i)
			ex := fromClient("same.example.", port, start, upstreamTook+queue+600*time.Microsecond)
			q := record(ex, queue+20*time.Microsecond, upstreamTook+500*time.Microsecond,
				attempt(1, 100*time.Microsecond, upstreamTook+300*time.Microsecond, trace.OutcomeOK))
			q.ServerIP, q.ServerPort = ex.ServerIP, ex.ServerPort
			upstreamQuery := toUpstream("same.example.", port+1, start+queue+250*time.Microsecond, upstreamTook)
			unseen := rng.IntN(30)
			for part, r := range []trace.Record{ex, q, upstreamQuery} {
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

// script makes one lookup of a server that tries as forward does: the port of each
// upstream exchange tells the lookup and the attempt that it is of.
func script(rng *rand.Rand, i int, start time.Duration) (parts []trace.Record) {
	const name, us = "same.example.", time.Microsecond
	port := uint16(1000 + 100*i)
	jitter := func(most int) time.Duration { return time.Duration(10+rng.IntN(most)) * us }
	var attempts []trace.Attempt
	var upstreamQueries []trace.Record
	at := jitter(300) // since the record's time
	queue := 20*us + jitter(200)
	begin := start + queue
	add := func(took time.Duration, outcome string) (n int, sent time.Duration) {
		attempts = append(attempts, attempt(len(attempts)+1, at, took, outcome))
		sent = begin + at + jitter(150)
		at += took + jitter(30)
		return len(attempts), sent
	}
	for tries := rng.IntN(3); tries >= 0; tries-- {
		upstreamQuery := func(n, k int) uint16 { return port + uint16(10*n+k) }
		last := tries == 0
		switch kind := rng.IntN(5); {
		case kind == 0 && !last: // silent
			n, sent := add(2*time.Second, trace.OutcomeTimeout)
			upstreamQueries = append(upstreamQueries, toUpstream(name, upstreamQuery(n, 0), sent, 0))
		case kind == 1 && !last: // refused
			n, sent := add(300*us, trace.OutcomeError)
			upstreamQueries = append(upstreamQueries, with(toUpstream(name, upstreamQuery(n, 0), sent, 0), refused))
		case kind == 2: // prefer_udp
			n, sent := add(2400*us, trace.OutcomeOK)
			upstreamQueries = append(upstreamQueries, with(toUpstream(name, upstreamQuery(n, 0), sent, ms), shortened), with(toUpstream(name, upstreamQuery(n, 1), sent+1200*us, ms), overTCP))
		case kind == 3: // closed
			n, sent := add(1600*us, trace.OutcomeOK)
			upstreamQueries = append(upstreamQueries, with(toUpstream(name, upstreamQuery(n, 0), sent, 0), overTCP, closed), with(toUpstream(name, upstreamQuery(n, 1), sent+400*us, ms), overTCP))
		default:
			took := ms + jitter(2000)
			n, sent := add(took, trace.OutcomeOK)
			upstreamQueries = append(upstreamQueries, toUpstream(name, upstreamQuery(n, 0), sent, took-200*us))
		}
	}
	took := at + jitter(100)
	ex := fromClient(name, port, start, queue+took+50*us)
	return append([]trace.Record{ex, record(ex, queue, took, attempts...)}, upstreamQueries...)
}

// Clients ask for one name, and its upstream fails in all manners; the records come as
// they do live. What is exact is right; and where lookups do not come at once, little of
// what is inferred is of another, and nothing is passed on alone that has a lookup.
func TestNeverAWrongExactWithFailures(t *testing.T) {
	for _, tc := range []struct {
		spread time.Duration // of thirty lookups
		wrong  float64       // share of the inferred, at most
		alone  bool
	}{{5 * ms, 1, true}, {100 * ms, 0.15, true}, {3 * sec, 0.05, false}} {
		joins := map[string]int{}
		inferred, wrong, alone := 0, 0, 0
		for seed := range uint64(40) {
			rng := rand.New(rand.NewPCG(seed, 9))
			var records []trace.Record
			whole := seed%2 == 0 // nothing is unobserved
			for i := range 30 {
				for _, part := range script(rng, i, time.Duration(rng.Int64N(int64(tc.spread)))) {
					if whole || rng.IntN(20) > 0 {
						records = append(records, part)
					}
				}
			}
			for _, tr := range live(3*sec, append(miss("before.example.", 500, -sec), records...)...) {
				if tr.Role == trace.RoleUpstream && whole {
					alone++
				}
				if tr.Query == nil || tr.QName != "same.example." {
					continue
				}
				for _, u := range tr.Upstreams {
					joins[u.Join]++
					if u.Join == trace.JoinNone && whole {
						alone++
					}
					for _, ex := range append(slices.Clone(u.Earlier), u.Exchange) {
						right := ex == nil || ex.ClientPort/10 == tr.Query.ClientPort/10+uint16(u.Attempt.Attempt)
						switch {
						case !right && u.Join == trace.JoinExact:
							t.Errorf("seed %d, spread %s: attempt %d of %d has %d", seed, tc.spread, u.Attempt.Attempt, tr.Query.ClientPort, ex.ClientPort)
						case !right:
							wrong++
						}
						if u.Join == trace.JoinInferred {
							inferred++
						}
					}
				}
			}
		}
		t.Logf("spread %s: %v; %d of %d inferred are wrong; alone, though all was observed: %d", tc.spread, joins, wrong, inferred, alone)
		if joins[trace.JoinExact] == 0 || joins[trace.JoinInferred] == 0 || float64(wrong) > tc.wrong*float64(inferred) || alone > 0 && !tc.alone {
			t.Error("too much is wrong")
		}
	}
}
