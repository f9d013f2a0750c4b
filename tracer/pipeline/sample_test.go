package pipeline

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Of ordinary lookups those are recorded that the plugin records at the same rate;
// their records carry the rate. The lookups are numbered, so that every share of
// the ids is tried.
func TestSampledAsThePluginDoes(t *testing.T) {
	for _, rate := range []float64{0, 0.25, 0.9} {
		b := newBench(t)
		b.pipeline.sampler = sampler{rate: &rate}
		const lookups = 400
		for i := range uint16(lookups) {
			b.lookup("sampled.example.", i)
			b.round(time.Millisecond)
		}
		b.round(time.Second)
		b.round(2 * time.Second)
		// Without sampling, to know which lookups there were.
		all := newBench(t)
		for i := range uint16(lookups) {
			all.lookup("sampled.example.", i)
			all.round(time.Millisecond)
		}
		all.round(time.Second)
		all.round(2 * time.Second)
		chosen := map[trace.TraceID]bool{}
		for _, ex := range all.exchanges {
			if ex.Sample != nil {
				t.Fatal("a rate in a record that was not sampled")
			}
			chosen[ex.TraceID] = trace.Sampled(trace.SamplingHash(trace.TransportUDP, ex.ID, ex.ClientPort), rate)
		}
		want := 0
		for _, in := range chosen {
			if in {
				want++
			}
		}
		if len(all.traces) != lookups || len(b.exchanges) != want || len(b.traces) != want {
			t.Errorf("rate %v: %d exchanges and %d traces of %d, want %d", rate, len(b.exchanges), len(b.traces), len(all.traces), want)
		}
		for _, tr := range b.traces {
			if !chosen[tr.TraceID] || tr.Sample == nil || *tr.Sample != rate || *tr.Exchange.Sample != rate {
				t.Errorf("rate %v: trace %s is wrong", rate, tr.TraceID)
			}
		}
		b.pipeline.publish()
		out := b.pipeline.Counters().SampledOut
		if n := uint64(lookups - want); out[trace.KindExchange] != n || out[trace.KindTrace] != n {
			t.Errorf("rate %v: left out %v, want %d of each", rate, out, n)
		}
	}
}

// What the kernel chose is recorded, whatever became of it, and all of it counts for
// others that were left out.
func TestSampledInKernel(t *testing.T) {
	rate := 0.25
	for _, inKernel := range []bool{false, true} {
		for _, exchanges := range []bool{true, false} { // are wanted
			b := newBench(t)
			b.pipeline.sampler = sampler{rate: &rate, inKernel: inKernel}
			if !exchanges {
				b.pipeline.cfg.Exchange = nil
			}
			const lookups = 40
			for i := range uint16(lookups) {
				b.lookup("sampled.example.", i)
				b.round(time.Millisecond)
			}
			b.round(time.Second)
			b.round(2 * time.Second)
			if all := len(b.traces) == lookups; all != inKernel {
				t.Errorf("in the kernel %v: %d traces of %d", inKernel, len(b.traces), lookups)
			}
			for _, tr := range b.traces {
				if ex := tr.Exchange; ex.SampledInKernel != inKernel || tr.Sample == nil || *tr.Sample != rate || inKernel && *ex.Sample != rate {
					t.Errorf("in the kernel %v: %s", inKernel, tr.AppendJSON(nil))
				}
			}
		}
	}
	tcp, s := &trace.Exchange{DNS: trace.DNS{Protocol: "tcp"}}, sampler{rate: &rate, inKernel: true}
	if s.mark(tcp); !tcp.SampledInKernel || tcp.Sample == nil {
		t.Errorf("TCP is not marked: %+v", tcp)
	}
}

// A trace goes by what CoreDNS got, which knows the port that it sees; without its record
// by the exchange, and that of a refresh by its id.
func TestSamplingHashOfATrace(t *testing.T) {
	query := &trace.Query{DNS: trace.DNS{Protocol: "udp", ID: 1, ClientPort: 2}}
	ex := &trace.Exchange{DNS: trace.DNS{Protocol: "udp", ID: 1, ClientPort: 3}}
	id := trace.Header{TraceID: trace.TraceID{12: 1, 15: 4}}
	for name, tc := range map[string]struct {
		tr   trace.Trace
		want uint32
	}{
		"both":     {trace.Trace{Header: id, Query: query, Exchange: ex}, trace.SamplingHash(trace.TransportUDP, 1, 2)},
		"query":    {trace.Trace{Header: id, Query: query}, trace.SamplingHash(trace.TransportUDP, 1, 2)},
		"exchange": {trace.Trace{Header: id, Exchange: ex}, trace.SamplingHash(trace.TransportUDP, 1, 3)},
		"refresh":  {trace.Trace{Header: id}, 0x01000004},
	} {
		if got := hashOf(&tc.tr); got != tc.want {
			t.Errorf("%s: got %#x, want %#x", name, got, tc.want)
		}
	}
}

// What is not ordinary is recorded at every rate, and its record has none.
func TestAlwaysRecorded(t *testing.T) {
	none := 0.0
	s := sampler{rate: &none}
	took := func(d time.Duration) *trace.Seconds { return trace.SecondsPtr(d) }
	healthy := func() *trace.Trace {
		dns := trace.DNS{RCode: "NOERROR", Duration: took(time.Millisecond)}
		head := trace.Header{TraceID: trace.TraceID{15: 1}}
		return &trace.Trace{
			Header: head, RCode: "NOERROR", Duration: dns.Duration, Outcome: trace.OutcomeAnswered,
			Exchange: &trace.Exchange{Header: head, DNS: dns, Outcome: trace.OutcomeAnswered},
			Query:    &trace.Query{Header: head, DNS: dns, Outcome: trace.OutcomeAnswered, Upstreams: []trace.Attempt{{Outcome: trace.OutcomeOK}}},
			Upstreams: []trace.Upstream{{Exchange: &trace.Exchange{
				Header: head, DNS: dns, Outcome: trace.OutcomeAnswered,
			}}},
		}
	}
	for name, tc := range map[string]struct {
		change             func(*trace.Trace)
		exchange, recorded bool
	}{
		"ordinary":   {func(*trace.Trace) {}, false, false},
		"NXDOMAIN":   {func(tr *trace.Trace) { tr.RCode, tr.Exchange.RCode = "NXDOMAIN", "NXDOMAIN" }, false, false},
		"unanswered": {func(tr *trace.Trace) { tr.Outcome, tr.Exchange.Outcome = "unanswered", "unanswered" }, true, true},
		"SERVFAIL":   {func(tr *trace.Trace) { tr.RCode, tr.Exchange.RCode = "SERVFAIL", "SERVFAIL" }, true, true},
		"refused":    {func(tr *trace.Trace) { tr.RCode, tr.Exchange.RCode = "REFUSED", "REFUSED" }, true, true},
		"slow": {func(tr *trace.Trace) {
			tr.Duration, tr.Exchange.Duration = took(500*time.Millisecond), took(500*time.Millisecond)
		}, true, true},
		"nearly slow": {func(tr *trace.Trace) {
			tr.Duration, tr.Exchange.Duration = took(499*time.Millisecond), took(499*time.Millisecond)
		}, false, false},
		"a drop that a retry made up for":    {func(tr *trace.Trace) { tr.Exchange.Drops = []trace.Drop{{}} }, true, true},
		"an ICMP error":                      {func(tr *trace.Trace) { tr.Exchange.ICMP = &trace.ICMP{} }, true, true},
		"a finding":                          {func(tr *trace.Trace) { tr.Diagnosis = []trace.Finding{{Code: "slow-upstream"}} }, false, true},
		"an attempt that timed out":          {func(tr *trace.Trace) { tr.Query.Upstreams[0].Outcome = trace.OutcomeTimeout }, false, true},
		"an attempt that failed in some way": {func(tr *trace.Trace) { tr.Query.Upstreams[0].Outcome = trace.OutcomeFailed }, false, true},
		"a silent upstream":                  {func(tr *trace.Trace) { tr.Upstreams[0].Exchange.Outcome = trace.OutcomeUnanswered }, false, true},
		"a silent upstream's upstream": {func(tr *trace.Trace) {
			tr.Upstreams[0].Upstreams = []trace.Upstream{{Exchange: &trace.Exchange{Outcome: trace.OutcomeDropped}}}
		}, false, true},
		"the server failed": {func(tr *trace.Trace) { tr.Query.Error = "no zone" }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			tr := healthy()
			tc.change(tr)
			if got := s.exchange(tr.Exchange); got != tc.exchange || got && tr.Exchange.Sample != nil {
				t.Errorf("exchange recorded: %v, want %v", got, tc.exchange)
			}
			if got := s.trace(tr); got != tc.recorded || got && tr.Sample != nil {
				t.Errorf("trace recorded: %v, want %v", got, tc.recorded)
			}
			if all := (sampler{}); !all.exchange(tr.Exchange) || !all.trace(tr) {
				t.Error("not recorded without a rate")
			}
		})
	}
}
