package metrics

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dnstrace/dnstrace/trace"
)

var began = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func wire(server string, outcome, rcode string, took time.Duration) *trace.Exchange {
	at := netip.MustParseAddrPort(server)
	ex := &trace.Exchange{Outcome: outcome, ServerIP: at.Addr(), ServerPort: at.Port(),
		Path: trace.PathOf(trace.Sighting{Message: trace.MessageQuery, Direction: trace.DirectionTX})}
	ex.Milestones.Query.Left = trace.MilestoneAt(0)
	ex.ClientIP, ex.RCode = netip.MustParseAddr("10.244.0.4"), rcode
	if outcome == trace.OutcomeAnswered {
		ex.Duration = trace.SecondsPtr(took)
	}
	return ex
}

// failover is a lookup whose first upstream was silent: its query was dropped.
func failover() *trace.Trace {
	ex := wire("10.96.0.10:53", trace.OutcomeAnswered, "NOERROR", 2*time.Second)
	first := wire("192.0.2.1:53", trace.OutcomeDropped, "", 0)
	first.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: "NETFILTER_DROP"}}
	garbage := wire("192.0.2.7:53", trace.OutcomeUnanswered, "", 0)
	garbage.Rejected = []trace.Rejection{{Why: trace.RejectedQuestion}} // CoreDNS answers FORMERR in its stead
	t := &trace.Trace{
		Outcome: ex.Outcome, RCode: ex.RCode, Duration: ex.Duration, Exchange: ex, Client: &trace.Endpoint{Namespace: "demo", Pod: "mypod"},
		Query: &trace.Query{Cache: trace.CacheMiss},
		Upstreams: []trace.Upstream{
			{Attempt: &trace.Attempt{Address: "192.0.2.1:53", Outcome: trace.OutcomeTimeout}, Exchange: first},
			{Exchange: wire("192.0.2.2:53", trace.OutcomeAnswered, "SERVFAIL", 3*time.Millisecond)},
			{Attempt: &trace.Attempt{Address: "192.0.2.4:53", Outcome: trace.OutcomeFailed}},
			{Attempt: &trace.Attempt{Address: "192.0.2.5:53"}},
			{Attempt: &trace.Attempt{Address: "192.0.2.6:53"}, Exchange: wire("192.0.2.6:53", trace.OutcomeAnswered, "NOERROR", time.Millisecond)},
			{Attempt: &trace.Attempt{Address: "192.0.2.7:53", Outcome: trace.OutcomeOK}, Exchange: garbage},
			{Attempt: &trace.Attempt{Address: "tls://192.0.2.3", Outcome: trace.OutcomeOK, Duration: trace.SecondsPtr(time.Millisecond)}},
		},
	}
	t.Time = began
	t.Query.Duration = trace.SecondsPtr(1999 * time.Millisecond)
	return t
}

func lost() *trace.Trace {
	ex := wire("10.96.0.10:53", trace.OutcomeDropped, "", 0)
	ex.Milestones.Query.Left = trace.NotObservable
	ex.Drops = []trace.Drop{{Message: trace.MessageResponse}}
	t := &trace.Trace{Outcome: ex.Outcome, Exchange: ex}
	t.Time = began
	return t
}

func TestLookups(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	l.Observe(failover())
	l.Observe(lost())
	// Reported before, and nobody's lookup.
	again, alone := failover(), lost()
	again.Replaces, alone.Role = true, trace.RoleUpstream
	l.Observe(again)
	l.Observe(alone)
	// Nobody waited for it.
	l.Observe(&trace.Trace{Outcome: trace.OutcomeAnswered, Upstreams: []trace.Upstream{{Attempt: &trace.Attempt{Outcome: trace.OutcomeOK}}}})
	want := `
		dnstrace_lookups_total{client="local",outcome="answered"} 1
		dnstrace_lookups_total{client="remote",outcome="dropped"} 1
		dnstrace_responses_total{client="local",rcode="NOERROR"} 1
		dnstrace_drops_total{message="response",query="client",reason="unknown"} 1
		dnstrace_drops_total{message="query",query="upstream",reason="NETFILTER_DROP"} 1
		dnstrace_upstream_attempts_total{result="timeout",upstream="192.0.2.1:53"} 1
		dnstrace_upstream_attempts_total{result="bad_rcode",upstream="192.0.2.2:53"} 1
		dnstrace_upstream_attempts_total{result="ok",upstream="tls://192.0.2.3"} 1
		dnstrace_upstream_attempts_total{result="error",upstream="192.0.2.4:53"} 1
		dnstrace_upstream_attempts_total{result="unknown",upstream="192.0.2.5:53"} 1
		dnstrace_upstream_attempts_total{result="ok",upstream="192.0.2.6:53"} 1
		dnstrace_upstream_attempts_total{result="error",upstream="192.0.2.7:53"} 1
		dnstrace_client_lookups_total{client_ip="10.244.0.4",namespace="demo",pod="mypod",result="noerror"} 1
		dnstrace_client_lookups_total{client_ip="10.244.0.4",namespace="",pod="",result="unanswered"} 1
		dnstrace_lookup_duration_seconds_count{client="local"} 1
		dnstrace_server_duration_seconds_count{cache="miss"} 1
		dnstrace_upstream_duration_seconds_count{upstream="192.0.2.2:53"} 1
		dnstrace_upstream_duration_seconds_count{upstream="192.0.2.6:53"} 1
		dnstrace_upstream_duration_seconds_count{upstream="tls://192.0.2.3"} 1
		dnstrace_client_duration_seconds_count{client_ip="10.244.0.4",namespace="demo",pod="mypod"} 1`
	got := strings.Join(above0(t, l), "\n")
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); !strings.Contains(got+"\n", line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
	if n, wanted := strings.Count(got, "\n")+1, strings.Count(want, "\n"); n != wanted {
		t.Errorf("%d series above 0, expected %d:\n%s", n, wanted, got)
	}
}

// above0 returns the series that counted something; of histograms and summaries
// their counts.
func above0(t *testing.T, c prometheus.Collector) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name, value := f.GetName(), m.GetCounter().GetValue()
			if n := m.GetHistogram().GetSampleCount() + m.GetSummary().GetSampleCount(); n > 0 {
				name, value = name+"_count", float64(n)
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if value > 0 {
				lines = append(lines, fmt.Sprintf("%s{%s} %v", name, strings.Join(labels, ","), value))
			}
		}
	}
	return lines
}

// hostile is a lookup of which everything that can differ does.
func hostile(i int, at time.Time) *trace.Trace {
	t := failover()
	t.Time = at
	t.Client = &trace.Endpoint{Namespace: "n", Pod: fmt.Sprint("pod-", i)}
	t.RCode, t.Outcome = fmt.Sprint("RCODE", i), trace.OutcomeAnswered
	t.Query.Cache = fmt.Sprint("cache", i)
	t.Exchange.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: fmt.Sprint("REASON", i)}}
	t.Upstreams[0].Attempt.Address = fmt.Sprintf("192.0.%d.%d:53", 3+i/256, i%256)
	return t
}

// Whatever comes, the number of series stays within a bound; and once the clients
// of the past are gone, new ones are distinguished again.
func TestSeriesAreBounded(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	for i := range 5000 {
		l.Observe(hostile(i, began))
	}
	full := testutil.CollectAndCount(l)
	for i := range 5000 {
		l.Observe(hostile(10000+i, began.Add(time.Minute)))
	}
	if n := testutil.CollectAndCount(l); n != full || n > 4000 {
		t.Errorf("%d series, then %d", full, n)
	}
	others := `dnstrace_client_lookups_total{client_ip="other",namespace="other",pod="other",result="error"}`
	if text := strings.Join(above0(t, l), "\n"); !strings.Contains(text, others) || strings.Contains(text, `pod="pod-10001"`) {
		t.Errorf("not bounded:\n%s", text)
	}
	later := began.Add(unusedFor + time.Second)
	for i := range 5 {
		l.Observe(hostile(20000+i, later))
	}
	text := strings.Join(above0(t, l), "\n")
	if !strings.Contains(text, `pod="pod-20004"`) || !strings.Contains(text, `reason="REASON20004"`) || strings.Contains(text, `pod="pod-1"`) {
		t.Errorf("no room for new ones:\n%s", text)
	}
}

// A lookup costs no memory, once its client and its upstreams are known.
func TestObserveDoesNotAllocate(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	tr := failover()
	l.Observe(tr)
	if n := testing.AllocsPerRun(100, func() { l.Observe(tr) }); n != 0 {
		t.Errorf("%v allocations a lookup", n)
	}
}

// BenchmarkObserve is what the metrics add to a lookup: with one upstream query, as
// with a cache miss, and with three.
func BenchmarkObserve(b *testing.B) {
	hit := failover()
	hit.Upstreams = nil
	miss := failover()
	miss.Upstreams = miss.Upstreams[1:2]
	for _, c := range []struct {
		name  string
		trace *trace.Trace
	}{{"hit", hit}, {"miss", miss}, {"failover", failover()}} {
		for name, clients := range map[string]bool{"node": false, "pod": true} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				l := NewLookups(Options{Clients: clients})
				b.ReportAllocs()
				for b.Loop() {
					l.Observe(c.trace)
				}
			})
		}
	}
}
