package history

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/origin"
)

// pod is a client on the node, by its namespace.
func pod(n int) origin.Client {
	return origin.Client{Place: origin.Place{Place: trace.Place{Node: "a", NetNS: uint32(n)}}}
}

// filler makes lines as long as those of real lookups, and as hard to compress: some
// 1.5 kB that shrink to a tenth.
func filler(r *rand.Rand) string {
	var b strings.Builder
	for b.Len() < 1500 {
		b.WriteString(`{"offset_seconds":0.0000`)
		fmt.Fprintf(&b, "%04d", r.IntN(10000))
		b.WriteString(`,"message":"query","netns":4026532001,"ifname":"eth0","direction":"tx","src":"10.244.0.4:40000","dst":"10.96.0.10:53"},`)
	}
	return b.String()
}

// attack is minutes of lookups of one history.
type attack struct {
	*History
	now    time.Time
	random *rand.Rand
	rest   [64]string // of lines
	n      int
}

func newAttack(bytes int) *attack {
	a := &attack{History: New(Config{Keep: time.Hour, MaxBytes: bytes}), now: start, random: rand.New(rand.NewPCG(1, 2))}
	for i := range a.rest {
		a.rest[i] = filler(a.random)
	}
	return a
}

func (a *attack) lookup(c origin.Client, label string, bad bool) {
	a.n++
	line := fmt.Sprintf(`{"v":1,"time":"%d","flow":"x","who":"%s","bad":%t,%s`, a.n, label, bad, a.rest[a.random.IntN(len(a.rest))])
	a.Add(a.now, Lookup{Line: []byte(line), Client: c, Label: label, Notable: bad})
}

// held counts the lookups that are held, by client and by whether something was the
// matter.
func (a *attack) held() map[string]int {
	n := map[string]int{}
	for line := range a.Query(time.Time{}, 0) {
		_, rest, _ := strings.Cut(string(line), `"who":"`)
		who, rest, _ := strings.Cut(rest, `"`)
		kind := " well"
		if strings.HasPrefix(rest, `,"bad":true`) {
			kind = " bad"
		}
		n[who+kind]++
	}
	return n
}

const (
	attackMinutes = 3
	attackRate    = 1300 // lookups a second, as seen from one pod
)

// A pod that asks 1,300 times a second, with failures or without, does not drive out
// what is known of pods that ask once a second, nor their failures.
func TestOneClientDrivesOutNobody(t *testing.T) {
	for name, bad := range map[string]bool{"healthy lookups": false, "failures": true} {
		t.Run(name, func(t *testing.T) {
			a := newAttack(2 << 20)
			for second := range attackMinutes * 60 {
				a.now = start.Add(time.Duration(second) * time.Second)
				for range attackRate {
					a.lookup(pod(1), "noisy", bad)
				}
				for other := range 5 {
					a.lookup(pod(2+other), fmt.Sprintf("quiet%d", other), second%10 == 0)
				}
			}
			held := a.held()
			for other := range 5 {
				who := fmt.Sprintf("quiet%d", other)
				if held[who+" bad"] != attackMinutes*6 || held[who+" well"] != attackMinutes*54 {
					t.Errorf("%s: %d failures and %d others are held", who, held[who+" bad"], held[who+" well"])
				}
			}
			s, reach := a.Stats(), a.Reach()
			if s.Bytes > 2<<20 || s.EvictedShare < attackRate || s.EvictedBytes != 0 {
				t.Errorf("%+v", s)
			}
			if held["noisy well"]+held["noisy bad"] < attackRate {
				t.Errorf("memory is left unused: %v", held)
			}
			if !reach.Ordinary.IsZero() || !reach.Notable.IsZero() || len(reach.Clients) != 1 || reach.Clients[0].Client != "noisy" {
				t.Fatalf("reach: %+v", reach)
			}
			of := reach.Clients[0]
			if bad != of.Ordinary.IsZero() || bad == of.Notable.IsZero() {
				t.Errorf("reach: %+v", of)
			}
			t.Logf("held of the noisy one: %d; %+v", held["noisy well"]+held["noisy bad"], s)
		})
	}
}

// Healthy lookups take nothing of the room of others, whichever client asks.
func TestHealthyLookupsDriveOutNoFailures(t *testing.T) {
	a := newAttack(2 << 20)
	a.lookup(pod(1), "noisy", true)
	for range 60 * attackRate {
		a.lookup(pod(1), "noisy", false)
	}
	if held := a.held(); held["noisy bad"] != 1 {
		t.Errorf("%v", held)
	}
	if s := a.Stats(); s.Notable != 1 || s.Bytes > 1<<20+blockBytes {
		t.Errorf("%+v", s)
	}
}

// Clients of other nodes can forge addresses: however many they make up, together they
// do not drive out what the addresses that were there before asked.
func TestForgedAddresses(t *testing.T) {
	a := newAttack(2 << 20)
	uplink := origin.Place{Place: trace.Place{Node: "a", NetNS: 1}, Device: "ens3"}
	const before = 20
	for second := range 60 {
		a.now = start.Add(time.Duration(second) * time.Second)
		for n := range before {
			a.lookup(origin.Client{Place: uplink, Name: fmt.Sprintf("10.0.1.%d", n)}, "true", true)
		}
		if second > 0 {
			for range attackRate {
				a.lookup(origin.Client{Place: uplink, Name: fmt.Sprint(a.n)}, "forged", true)
			}
		}
	}
	held := a.held()
	if held["true bad"] != before*60 {
		t.Errorf("%d of %d true ones are held, and %d forged", held["true bad"], before*60, held["forged bad"])
	}
	if n := len(a.rooms[notable].holders); n > maxNames+1 {
		t.Errorf("%d clients are distinguished", n)
	}
}

// Among many clients of a kind, the oldest lookups go first, and the answer says so.
func TestEqualClientsShareTheAge(t *testing.T) {
	a := newAttack(2 << 20)
	const clients = 50
	for second := range 600 {
		a.now = start.Add(time.Duration(second) * time.Second)
		for n := range clients {
			a.lookup(pod(n), fmt.Sprintf("pod%d", n), false)
		}
	}
	held, reach := a.held(), a.Reach()
	least, most := a.n, 0
	for _, n := range held {
		least, most = min(least, n), max(most, n)
	}
	if len(held) != clients || most > least+2 {
		t.Errorf("from %d to %d lookups of %d clients", least, most, len(held))
	}
	want := a.now.Add(-time.Duration(least) * time.Second)
	if d := reach.Ordinary.Sub(want).Abs(); d > 2*time.Second || !reach.Notable.IsZero() || len(reach.Clients) != 0 {
		t.Errorf("%+v, want %s", reach, want)
	}
}

// What was counted is gone when all lookups are, whatever happened before.
func TestNothingIsLeft(t *testing.T) {
	a := newAttack(1 << 20)
	for i := range 40_000 {
		a.now = start.Add(time.Duration(i) * time.Millisecond)
		who := 1
		if i%3 == 0 {
			who = 2 + a.random.IntN(60)
		}
		a.lookup(pod(who), fmt.Sprint(who), i%2 == 0)
	}
	s := a.Stats()
	if s.EvictedShare == 0 || s.Bytes > 1<<20 {
		t.Errorf("%+v", s)
	}
	a.Expire(a.now.Add(2 * time.Hour))
	s = a.Stats()
	if s.Traces != 0 || s.Bytes != 0 || s.Notable != 0 || int(s.EvictedAge+s.EvictedBytes+s.EvictedShare) != a.n {
		t.Errorf("%+v of %d", s, a.n)
	}
	for _, r := range a.rooms {
		if r.raw != 0 || len(r.holders) != 0 || len(r.byNumber) != 0 || len(r.names) != 0 {
			t.Errorf("%d bytes of %d clients are left", r.raw, len(r.holders))
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for name, clients := range map[string]int{"one client": 1, "noisy": 2, "fifty": 50} {
		b.Run(name, func(b *testing.B) {
			a := newAttack(16 << 20)
			line := []byte(`{"v":1,"time":"1","flow":"x",` + filler(a.random))
			lookups := make([]Lookup, 1300)
			for i := range lookups {
				who := i % clients
				if clients == 2 && i > 5 {
					who = 0
				}
				lookups[i] = Lookup{Line: line, Client: pod(who)}
			}
			for i := range b.N {
				a.Add(start.Add(time.Duration(i)*time.Microsecond), lookups[i%len(lookups)])
			}
		})
	}
}

// However many clients ask much, what is known of one that asks little stays: forty pods,
// and a client that makes network namespaces without end, each a place of its own.
func TestManyClientsDriveOutNobody(t *testing.T) {
	for name, noisy := range map[string]func(n int) origin.Client{
		"forty pods":       func(n int) origin.Client { return pod(100 + n%40) },
		"many namespaces":  func(n int) origin.Client { c := pod(100 + n); c.Name = "/kubepods/besteffort/pod1/c1"; return c },
		"pods of all ages": func(n int) origin.Client { return pod(100 + n/20_000*20 + n%20) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttack(2 << 20)
			for second := range 60 {
				a.now = start.Add(time.Duration(second) * time.Second)
				for range attackRate {
					a.lookup(noisy(a.n), "noisy", true)
				}
				a.lookup(pod(1), "quiet", second%10 == 0)
			}
			if held := a.held(); held["quiet bad"] != 6 || held["noisy bad"] < attackRate {
				t.Errorf("held: %v", held)
			}
			s, reach := a.Stats(), a.Reach()
			if s.Bytes > 2<<20 {
				t.Errorf("%+v", s)
			}
			if len(reach.Clients) == 0 && !reach.Notable.After(start.Add(30*time.Second)) {
				t.Errorf("nobody says that less is held of the noisy ones: %+v", reach)
			}
		})
	}
}
