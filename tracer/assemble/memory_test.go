package assemble

import (
	"fmt"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/tracer/agenda"
	"github.com/dnstrace/dnstrace/tracer/freelist"
)

// room counts the lookups that an Assembler has memory for.
func (a *Assembler) room() int { return cap(a.due) + a.calls.room }

// A burst of lookups fills the tables. When it is over and a quiet load goes on, all
// that it needed is released, and what is still held is still there.
func TestBurstIsForgotten(t *testing.T) {
	const burst = 30_000
	a := New(Config{MaxBytes: 1 << 30})
	at, asked, passed := time.Duration(0), 0, 0
	ask := func(name string) {
		a.Add(fromClient(name, uint16(asked), at, time.Millisecond))
		asked++
	}
	advance := func() {
		passed += len(a.Advance(epoch.Add(at)))
	}
	for n := range burst {
		ask([]string{"hot.example.", fmt.Sprintf("n%d.example.", n)}[n%2])
		at += 10 * time.Microsecond
	}
	if len(a.due) != burst {
		t.Fatalf("%d are held, expected %d", len(a.due), burst)
	}
	minutes := func(n int) {
		for range 60 * n {
			at += time.Second
			ask("hot.example.")
			advance()
		}
	}
	minutes(2)
	before := a.room()
	if before > 6*freelist.Small {
		t.Errorf("two minutes later there is memory for %d lookups", before)
	}
	minutes(10)
	if n := a.room(); n > before {
		t.Errorf("under the same load there was memory for %d, and ten minutes later for %d", before, n)
	}
	at += time.Minute
	if advance(); passed != asked {
		t.Errorf("%d of %d lookups were passed on", passed, asked)
	}
}

// A table that shrinks forgets nothing that is held: its halves still find each
// other.
func TestShrinkingKeepsWhatIsHeld(t *testing.T) {
	const lookups = 100
	a := New(Config{})
	for n := range lookups {
		a.Add(fromClient(fmt.Sprintf("n%d.example.", n), uint16(n), 0, time.Millisecond))
	}
	a.due = append(make(agenda.Of[*lookup], 0, 100*freelist.Small), a.due...)
	a.calls.room = 100 * freelist.Small
	a.shrunk = time.Time{}
	a.shrink()
	if cap(a.due) > freelist.Small || a.calls.room > freelist.Small {
		t.Fatalf("it did not shrink: %d, %d", cap(a.due), a.calls.room)
	}
	for n := range lookups {
		a.Add(record(fromClient(fmt.Sprintf("n%d.example.", n), uint16(n), 0, time.Millisecond), 0, time.Millisecond))
	}
	traces := a.Flush()
	if len(traces) != lookups {
		t.Fatalf("%d traces of %d lookups", len(traces), lookups)
	}
	for _, tr := range traces {
		if tr.Query == nil || tr.Exchange == nil {
			t.Errorf("%s has lost a half: %v", tr.QName, tr)
		}
	}
}

// The lookups of a caller stay in order, and those of others apart, while the oldest
// are dropped and their memory is reused.
func TestRememberedInOrder(t *testing.T) {
	c := newCalls()
	for i := range 20 * maxAlike {
		// Some come late, also beyond those that are dropped.
		start := time.Duration(i) * time.Millisecond
		if i%5 == 4 {
			start -= time.Duration(i%(2*maxAlike)) * time.Millisecond
		}
		now := epoch.Add(time.Duration(i) * rememberCall / (4 * maxAlike))
		c.add(ask{name: "hot.example.", qtype: "A", pid: 7 + i/(5*maxAlike), port: uint16(1000 + i), start: start, took: ms}.exchange(), now)
		for key, r := range c.byCaller {
			if r.caller != key || len(r.list) == 0 || len(r.list) > maxAlike {
				t.Fatalf("%v has %d lookups of %v", key, len(r.list), r.caller)
			}
			for j := 1; j < len(r.list); j++ {
				if r.list[j].before(&r.list[j-1]) || r.list[j].name == "" {
					t.Fatalf("lookup %d of %v is out of order", j, key)
				}
			}
		}
	}
	c.expire(epoch.Add(time.Hour))
	if len(c.byCaller) != 0 {
		t.Errorf("%d remembered for ever", len(c.byCaller))
	}
}
