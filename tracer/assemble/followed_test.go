package assemble

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// A client with an answer that is no use to it goes on, or is known not to: as it comes to a
// tracer, and as it is read from a file.
func TestClientGoesOn(t *testing.T) {
	truncated := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 5, took: ms, tc: true}
	failed := []ask{
		{name: "a.b.demo.svc.cluster.local.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.b.svc.cluster.local.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL"},
	}
	later := ask{name: "other.example.", qtype: "A", pid: 9, port: 3000, start: 9 * sec, took: ms}
	for _, tc := range []struct {
		name   string
		asks   []ask
		change func(*trace.Exchange)
		want   bool // that the client of the first, or of the second where a name failed, stopped
	}{
		{"nothing", []ask{truncated}, nil, true},
		{"over TCP", []ask{truncated, {name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true}}, nil, false},
		{"over TCP, the process unknown", []ask{truncated, {name: "a.example.", qtype: "A", port: 1001, start: 2 * ms, took: ms, tcp: true}}, nil, false},
		{"over TCP half a second later", []ask{truncated, {name: "a.example.", qtype: "A", pid: 7, port: 1001, start: sec / 2, took: ms, tcp: true}}, nil, false},
		{"over TCP, silent", []ask{truncated, {name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, tcp: true}}, nil, false},
		{"a connection that does not come about", []ask{truncated, {pid: 7, port: 1001, start: 2 * ms, tcp: true}}, nil, false},
		{"another name over TCP", []ask{truncated, {name: "b.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true}}, nil, true},
		{"AAAA is answered", []ask{truncated, {name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10, took: ms}}, nil, true},
		{"another server answers in whole", []ask{truncated, {name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 5, start: ms / 100, took: 2 * ms}}, nil, false},
		{"the same again", []ask{truncated, {name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 100 * ms, took: ms, tc: true}}, nil, true},
		{"packets were lost", []ask{truncated}, func(ex *trace.Exchange) { ex.LostEvents = 1 }, false},
		{"sampled in the kernel", []ask{truncated}, func(ex *trace.Exchange) { ex.SampledInKernel = true }, false},
		{"the client is not observed", []ask{truncated}, func(ex *trace.Exchange) { ex.Milestones = trace.Milestones{} }, false},
		{"a search list ends", failed, nil, true},
		{"a search list goes on", append(failed, ask{name: "a.b.", qtype: "A", pid: 7, port: 1002, start: 4 * ms, took: ms}), nil, false},
		{"a search list goes on, silent", append(failed, ask{name: "a.b.", qtype: "A", pid: 7, port: 1002, start: 4 * ms}), nil, false},
		{"the other type is silent", append(failed, ask{name: "a.b.svc.cluster.local.", qtype: "AAAA", pid: 7, port: 1001, start: 3 * ms}), nil, false},
		{"no search list", failed[1:], nil, false},
	} {
		var exchanges []*trace.Exchange
		for _, a := range append(tc.asks, later) {
			exchanges = append(exchanges, a.exchange())
		}
		if tc.change != nil {
			tc.change(exchanges[0])
		}
		about := exchanges[0]
		if about.RCode == "NXDOMAIN" {
			about = exchanges[1]
		}
		records := make([]trace.Record, len(exchanges))
		for i, ex := range exchanges {
			records[i] = ex.Clone()
		}
		for how, traces := range map[string][]*trace.Trace{"live": replayLive(exchanges, true), "read": assemble(records...)} {
			// What was reported before is the diagnosis's to remember.
			reported := map[trace.TraceID]bool{}
			for _, tr := range traces {
				next := tr.TraceID != about.TraceID
				if next {
					reported[tr.TraceID] = true
					continue
				}
				got := tr.Stopped
				for _, ex := range exchanges {
					got = got && !(reported[ex.TraceID] && goesOnFrom(about, end(about.Time, about.Duration), ex))
				}
				if got != tc.want {
					t.Errorf("%s, %s: stopped %t", tc.name, how, got)
				}
			}
		}
	}
}

// A client whose second lookup may be shed is not said to have stopped, nor
// one whose tracer ends before a second is over.
func TestClientMayHaveGoneOn(t *testing.T) {
	truncated := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true}.exchange()
	for _, tr := range assembleLive(&openUntil{part: true}, comes{100 * ms, truncated.Clone()}) {
		if tr.Stopped {
			t.Error("stopped, of a part of the lookups")
		}
	}
	for _, tr := range assemble(truncated.Clone()) {
		if tr.Stopped {
			t.Error("stopped, at once")
		}
	}
}
