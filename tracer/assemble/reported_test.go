package assemble

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// goneOn is what a node writes of an exchange that went on after it was reported.
func goneOn(ex *trace.Exchange, took time.Duration) *trace.Exchange {
	more := ex.Clone()
	more.Replaces = true
	if took != 0 {
		answer(more, took)
	}
	return more
}

// after passes time until what was held before is passed on.
func after(t *testing.T, a *Assembler, at time.Duration, want string) []*trace.Trace {
	t.Helper()
	traces := a.Advance(epoch.Add(at))
	if got := outlines(traces); got != want {
		t.Fatalf("after %s: got:\n%s\nwant:\n%s", at, got, want)
	}
	return traces
}

// An exchange that goes on is one lookup, whether what was reported of it is still held
// or not; what replaces it has all that was joined.
func TestGoesOn(t *testing.T) {
	const us = time.Microsecond
	ex := fromClient("a.example.", 1000, 0, 0)
	q := record(ex, 20*us, 11*sec, attempt(1, 100*us, 10*sec, trace.OutcomeOK))
	upstreamQuery := toUpstream("a.example.", 2000, 200*us, 0)

	t.Run("held", func(t *testing.T) {
		a := New(Config{})
		for _, r := range []trace.Record{ex.Clone(), goneOn(ex, 12*sec), q, upstreamQuery.Clone(), goneOn(upstreamQuery, 9*sec)} {
			a.Add(r)
		}
		traces := after(t, a, 30*sec, "1000 recorded [1: 2000 exact]")
		if traces[0].Outcome != trace.OutcomeAnswered || traces[0].Upstreams[0].Exchange.Outcome != trace.OutcomeAnswered {
			t.Errorf("%s, %s", traces[0].Outcome, traces[0].Upstreams[0].Exchange.Outcome)
		}
	})
	t.Run("passed on", func(t *testing.T) {
		a := New(Config{})
		a.Add(ex.Clone())
		first := after(t, a, 10*sec, "1000")
		a.Add(upstreamQuery.Clone())
		a.Add(goneOn(ex, 12*sec))
		a.Add(q)
		again := after(t, a, 14*sec, "1000 recorded again [1: 2000 inferred]")
		if !again[0].Time.Equal(first[0].Time) || again[0].TraceID != first[0].TraceID || again[0].Outcome != trace.OutcomeAnswered {
			t.Errorf("%+v", again[0])
		}
		a.Add(goneOn(upstreamQuery, 9*sec))
		if last := after(t, a, 16*sec, "1000 recorded again [1: 2000 inferred]"); last[0].Upstreams[0].Exchange.Outcome != trace.OutcomeAnswered {
			t.Error("the late response of the upstream is missing")
		}
		// The same once more is no news.
		a.Add(goneOn(ex, 12*sec))
		after(t, a, 18*sec, "")
		if got := a.Stats(); got.Duplicates != 1 {
			t.Errorf("%+v", got)
		}
		// It is not remembered for ever.
		after(t, a, 60*sec, "")
		if got := a.Stats(); got.Bytes != 0 || a.flows.Len()+len(a.questions) != 0 {
			t.Errorf("%+v, %d flows, %d questions", got, a.flows.Len(), len(a.questions))
		}
		a.Add(goneOn(ex, 13*sec))
		if tr := after(t, a, 120*sec, "1000 again"); len(tr[0].Gaps) != 1 {
			t.Errorf("gaps %v", tr[0].Gaps)
		}
	})
}

// A query that came to the server twice has two records, and they are of one lookup,
// whenever they come.
func TestRepeatedQuery(t *testing.T) {
	const us = time.Microsecond
	ex := fromClient("a.example.", 1000, 0, 5500*ms)
	ex.Transmissions = 2
	see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 5*sec)
	first := record(ex, 20*us, ms, attempt(1, 100*us, ms/2, trace.OutcomeOK))
	second := record(ex, 5*sec+20*us, 400*ms, attempt(1, 100*us, 300*ms, trace.OutcomeOK))
	upstreamQueries := []trace.Record{toUpstream("a.example.", 2000, 200*us, ms/4), toUpstream("a.example.", 2001, 5*sec+200*us, 200*ms)}
	const whole = "1000 recorded [1: 2000 exact] [2001 exact]"
	records := append([]trace.Record{ex, first, second}, upstreamQueries...)
	everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
		if got := outlines(traces); got != whole || traces[0].Query != first {
			t.Errorf("got:\n%s\nwant:\n%s", got, whole)
		}
	})
	t.Run("the exchange was not seen", func(t *testing.T) {
		for seed := range uint64(10) {
			some := append([]trace.Record{first, second}, upstreamQueries...)
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			if got, want := outlines(assemble(some...)), "record 1000 [1: 2000 exact] [2001 exact]"; got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		}
	})
	t.Run("the second comes late", func(t *testing.T) {
		a := New(Config{})
		for _, r := range append([]trace.Record{ex.Clone(), first}, upstreamQueries[0]) {
			a.Add(r)
		}
		after(t, a, 6*sec, "1000 recorded [1: 2000 exact]")
		a.Add(upstreamQueries[1])
		a.Add(second)
		after(t, a, 8*sec, "1000 recorded again [1: 2000 exact] [2001 exact]")
	})
	t.Run("its exchange is reported in two", func(t *testing.T) {
		a := New(Config{Timeout: 4 * time.Second})
		lost := fromClient("a.example.", 1000, 0, 0)
		a.Add(lost.Clone())
		a.Add(first)
		a.Add(upstreamQueries[0])
		after(t, a, 5*sec, "1000 recorded [1: 2000 exact]")
		a.Add(second)
		a.Add(upstreamQueries[1])
		a.Add(goneOn(ex, 0))
		after(t, a, 8*sec, "1000 recorded again [1: 2000 exact] [2001 exact]")
	})
}

// A record that was passed on without the exchange, as there was no room, and the
// exchange that comes then, are one lookup, with what the record had.
func TestExchangeAfterItsRecords(t *testing.T) {
	const us = time.Microsecond
	ex := fromClient("a.example.", 1000, 0, 5500*ms)
	ex.Transmissions = 2
	see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 5*sec)
	first := record(ex, 20*us, ms, attempt(1, 100*us, ms/2, trace.OutcomeOK))
	second := record(ex, 5*sec+20*us, 400*ms, attempt(1, 100*us, 300*ms, trace.OutcomeOK))
	a := New(Config{Timeout: time.Second})
	a.Add(first)
	a.Add(toUpstream("a.example.", 2000, 200*us, ms/4))
	after(t, a, 9*sec, "record 1000 [1: 2000 exact]")
	a.Add(second)
	a.Add(ex)
	after(t, a, 10*sec, "1000 recorded again [1: 2000 exact]")
	after(t, a, 60*sec, "")
	if a.flows.Len()+len(a.questions) != 0 || a.Stats().Bytes != 0 {
		t.Errorf("%d flows, %d questions, %+v", a.flows.Len(), len(a.questions), a.Stats())
	}
}

// A server that has to connect first tries that for up to 30 s: its record comes when the
// client has long given up, and belongs to what was passed on by then. The connection waits
// for it.
func TestConnectsForLong(t *testing.T) {
	const us = time.Microsecond
	a := New(Config{})
	for _, r := range miss("before.example.", 1, 0) {
		a.Add(r)
	}
	after(t, a, 3*sec, "1 recorded [1: 2 exact]")
	start := 10 * sec
	ex := fromClient("a.example.", 1000, start, 0)
	syn := with(toUpstream("", 2000, start+200*us, 0), synOnly)
	a.Advance(epoch.Add(start + 8*sec))
	a.Add(ex)
	after(t, a, start+18*sec, "1000")
	a.Advance(epoch.Add(start + 19*sec))
	a.Add(syn)
	after(t, a, start+30*sec, "")
	a.Add(record(ex, 20*us, 30*sec, attempt(1, 100*us, 30*sec-ms, trace.OutcomeTimeout)))
	after(t, a, start+32*sec, "1000 recorded again [1: 2000 exact]")
	after(t, a, 2*time.Minute, "")
	if a.flows.Len() != 0 || a.Stats().Bytes != 0 {
		t.Errorf("%d flows, %+v", a.flows.Len(), a.Stats())
	}
}

// The worst load: 10,000 exchanges a second that a server sent and that are nobody's.
// Memory is bounded, the oldest is passed on, and none is lost.
func TestWorstLoad(t *testing.T) {
	const most = 4 << 20
	a := New(Config{MaxBytes: most})
	for _, r := range miss("before.example.", 1, 0) {
		a.Add(r)
	}
	passed, largest := 0, 0
	const lookups = 50_000
	var last time.Time
	for i := range lookups {
		at := sec + time.Duration(i)*100*time.Microsecond
		ex := toUpstream(fmt.Sprintf("n%d.example.", i), uint16(i), at, ms)
		a.Add(ex)
		if i%50 != 0 {
			continue
		}
		for _, tr := range a.Advance(epoch.Add(at)) {
			passed++
			if tr.Time.Before(last) {
				t.Fatalf("passed on out of order: %s after %s", tr.Time, last)
			}
			last = tr.Time
		}
		largest = max(largest, a.Stats().Bytes)
	}
	if s := a.Stats(); largest > most || s.Evicted == 0 || s.Pending == 0 {
		t.Errorf("%d bytes at most, %+v", largest, s)
	}
	if passed += len(a.Flush()); passed != lookups+1 {
		t.Errorf("%d of %d passed on", passed, lookups+1)
	}
	a.Advance(a.now.Add(time.Minute))
	if a.flows.Len()+len(a.questions)+len(a.stamped)+len(a.spans) != 0 || a.Stats().Bytes != 0 {
		t.Errorf("kept for ever: %d flows, %d questions, %+v", a.flows.Len(), len(a.questions), a.Stats())
	}
}

// The client and server of an exchange are named by its first record: pods and endpoints may
// be gone when it goes on.
func TestNamesOutliveTheirPods(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 0)
	named := ex.Clone()
	named.Server = &trace.Endpoint{Pod: "dns-1", Namespace: "kube-system", Service: "kube-system/kube-dns", ServiceInferred: true}
	more := goneOn(ex, 9*sec)
	more.Server = &trace.Endpoint{Pod: "dns-1", Namespace: "kube-system", Process: "coredns", PID: 7}
	a := New(Config{})
	a.Add(named)
	after(t, a, 10*sec, "1000")
	a.Add(more)
	again := after(t, a, 20*sec, "1000 again")
	want := trace.Endpoint{Pod: "dns-1", Namespace: "kube-system", Service: "kube-system/kube-dns", ServiceInferred: true, Process: "coredns", PID: 7}
	if got := again[0].Server; got == nil || *got != want {
		t.Errorf("the server is %+v", got)
	}
}
