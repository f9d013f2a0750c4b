package assemble

import (
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// openAsks knows of exchanges what a table of them does: those that began and are not over.
type openAsks struct {
	openUntil
	exchanges []*trace.Exchange
	over      map[*trace.Exchange]time.Time // when each is passed on
}

func (o *openAsks) Kin(of *trace.Exchange, from, until time.Time) (kin []*trace.Exchange) {
	for _, ex := range o.exchanges {
		begun, over := !ex.Time.After(o.now), !o.over[ex].After(o.now)
		if begun && !over && ex.ClientIP == of.ClientIP && !ex.Time.Before(from) && !ex.Time.After(until) {
			kin = append(kin, ex.Clone())
		}
	}
	return kin
}

// replayLive assembles exchanges as a tracer does: each is passed on 100 ms after its
// response, or 8 s after its query.
func replayLive(exchanges []*trace.Exchange, known bool) []*trace.Trace {
	o := &openAsks{exchanges: exchanges, over: map[*trace.Exchange]time.Time{}}
	for _, ex := range exchanges {
		if o.over[ex] = end(ex.Time, ex.Duration).Add(100 * time.Millisecond); ex.Duration == nil {
			o.over[ex] = ex.Time.Add(8 * time.Second)
		}
	}
	cfg := Config{Timeout: 7 * time.Second}
	if known {
		cfg.Open = o
	}
	a := New(cfg)
	var traces []*trace.Trace
	rest := slices.Clone(exchanges)
	for o.now = epoch; o.now.Sub(epoch) < time.Minute; o.now = o.now.Add(10 * time.Millisecond) {
		rest = slices.DeleteFunc(rest, func(ex *trace.Exchange) bool {
			if o.over[ex].After(o.now) {
				return false
			}
			a.Add(ex.Clone())
			return true
		})
		traces = append(traces, a.Advance(o.now)...)
	}
	return traces
}

// Whichever of a call is over first, all its records name the same resolution, and each is
// reported once, as what is under way is known.
func TestCallsAsTheyCome(t *testing.T) {
	for _, tc := range callCases {
		t.Run(tc.name, func(t *testing.T) {
			var exchanges []*trace.Exchange
			for _, a := range tc.asks {
				exchanges = append(exchanges, a.exchange())
			}
			traces := replayLive(exchanges, true)
			if len(traces) != len(exchanges) {
				t.Errorf("%d traces of %d lookups", len(traces), len(exchanges))
			}
			if got := letters(exchanges, traces); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// Where it is not known what is under way, a lookup that was reported alone is reported
// again when the other half of its call comes.
func TestCallIsReportedAgain(t *testing.T) {
	exchanges := []*trace.Exchange{
		ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms}.exchange(),
		ask{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10, took: 2 * time.Second}.exchange(),
	}
	traces := replayLive(exchanges, false)
	if got := letters(exchanges, traces); got != "aa" || len(traces) != 3 || traces[0].Resolution != "" {
		t.Fatalf("%d traces, calls %s", len(traces), got)
	}
	for i, tr := range traces {
		if again := i > 0 && tr.QType == "A"; tr.Replaces != again {
			t.Errorf("trace %d of %s: replaces %t", i, tr.QType, tr.Replaces)
		}
	}
}

// glibc closes its socket when A is truncated: the answer for AAAA is dropped then, and
// reported after the others, which explain it.
func TestDroppedIsReportedAfterWhatClosedItsSocket(t *testing.T) {
	a := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true}.exchange()
	aaaa := ask{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10}.exchange()
	aaaa.Outcome = trace.OutcomeDropped
	aaaa.Drops = []trace.Drop{{Message: trace.MessageResponse, Offset: trace.Seconds(ms)}}
	next := ask{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true}.exchange()
	traces := assembleLive(&openUntil{}, comes{50 * ms, record(a, ms/5, ms/2)}, comes{50 * ms, record(aaaa, ms/5, ms/2)},
		comes{100 * ms, aaaa}, comes{100 * ms, a}, comes{100 * ms, next})
	if len(traces) != 3 || traces[2].QType != "AAAA" {
		t.Errorf("%v", outlines(traces))
	}
}
