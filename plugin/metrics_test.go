package dnstrace

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dnstrace/dnstrace/trace"
)

// labels returns the labels of a metric of a server block for all names on 127.0.0.1, its own last.
func labels(own ...string) []string { return append([]string{"dns://127.0.0.1:0", ".", ""}, own...) }

// observed returns how many attempts a histogram holds.
func observed(t *testing.T, upstream, outcome string) uint64 {
	t.Helper()
	var m dto.Metric
	if err := attemptDuration.WithLabelValues(labels(upstream, outcome)...).(prometheus.Metric).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetHistogram().GetSampleCount()
}

// Lookups, refreshes and attempts are counted, recorded or not.
func TestMetrics(t *testing.T) {
	good, bad := upstream(t, answerA), refusing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			sample 0
		}
		cache 3600 cached.org
		forward . `+bad+` `+good+` {
			policy sequential
		}
	}`)
	statuses := []string{trace.CacheHit, trace.CacheMiss, trace.CacheNone, trace.CacheStale}
	before := make(map[string]float64)
	for _, l := range statuses {
		before[l] = value(lookups.WithLabelValues(labels(l)...))
	}
	for _, name := range []string{"cached.org.", "cached.org.", "cached.org.", "other.org."} {
		s.ask(name, dns.TypeA)
	}
	want := map[string]float64{trace.CacheHit: 2, trace.CacheMiss: 1, trace.CacheNone: 1}
	for _, l := range statuses {
		eventually(t, func() bool { return value(lookups.WithLabelValues(labels(l)...))-before[l] == want[l] })
	}
	eventually(t, func() bool {
		return observed(t, good, trace.OutcomeOK) == 2 && observed(t, bad, trace.OutcomeError) == 2
	})
	s.wait(2) // the two whose first upstream failed
}

func TestRefreshMetric(t *testing.T) {
	a := new(aging)
	s := a.start(t, "prefetch 1 1m 90%")
	before := value(refreshes.WithLabelValues(labels("prefetch")...))
	s.ask("example.org.", dns.TypeA)
	s.ask("example.org.", dns.TypeA)
	s.wait(3)
	if got := value(refreshes.WithLabelValues(labels("prefetch")...)) - before; got != 1 {
		t.Errorf("%v refreshes counted", got)
	}
	s.stop()
	for kind, want := range map[string]float64{trace.KindQuery: 2, trace.KindRefresh: 1} {
		if got := value(recordsWritten.WithLabelValues("file "+s.records, kind)); got != want {
			t.Errorf("%v records of kind %s are counted, want %v", got, kind, want)
		}
	}
}

// A cache status that stays null is counted as unknown.
func TestUnknownLookup(t *testing.T) {
	before := value(lookups.WithLabelValues(labels(unknownLabel)...))
	q := &query{metrics: newServerMetrics("dns://127.0.0.1:0", ".", "")}
	q.record.init(q)
	q.count()
	if got := value(lookups.WithLabelValues(labels(unknownLabel)...)) - before; got != 1 {
		t.Errorf("%v lookups of an unknown cache status are counted", got)
	}
}

// A record that comes when its output is closed is counted.
func TestClosedMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newStuckSink()
		o := newOutput(outputConfig{kind: outputFile, path: t.Name()}, sink, 1)
		for range 2 {
			o.push(longRecord(1))
			time.Sleep(2 * batchDelay)
			o.flush()
		}
		close(sink.let)
		if got := dropped(o.config.String(), causeClosed); got != 2 {
			t.Errorf("%v records are counted as closed", got)
		}
		time.Sleep(2 * batchDelay) // the writer ends
	})
}

// However many upstreams there are, the labels are bounded.
func TestUpstreamLabelsAreBounded(t *testing.T) {
	m := newServerMetrics("dns://:53", "bounded.", "")
	for i := range 2 * maxUpstreams {
		m.attempt(fmt.Sprint("192.0.2.1:", i), trace.OutcomeOK)
		m.attempt(fmt.Sprint("192.0.2.1:", i), trace.OutcomeError)
	}
	if got := len(m.attempts); got != 2*maxUpstreams {
		t.Errorf("%d histograms are remembered", got)
	}
	if got := prometheusSeries(t, "bounded."); got != 2*maxUpstreams+2 {
		t.Errorf("there are %d histograms", got)
	}
}

// prometheusSeries returns how many histograms of attempts there are for some zones.
func prometheusSeries(t *testing.T, zones string) (n int) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if family.GetName() == "coredns_dnstrace_attempt_duration_seconds" && l.GetName() == "zones" && l.GetValue() == zones {
					n++
				}
			}
		}
	}
	return n
}

// Queries are counted by server, zones and view, as CoreDNS's own plugins count.
func TestMetricsOfServers(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		view tests {
			expr type() == 'TXT'
		}
		dnstrace example.org example.net {
			output file $RECORDS
			accept 127.0.0.0/8
		}
		whoami
	}`)
	of := []string{"dns://127.0.0.1:0", "example.org.,example.net.", "tests"}
	queries, options := lookups.WithLabelValues(append(of, trace.CacheNone)...), optionsSeen.WithLabelValues(append(of, optionAccepted)...)
	queriesBefore, optionsBefore := value(queries), value(options)
	m := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: []byte(data27)})
	s.exchange("udp", m)
	s.wait(1)
	if q, o := value(queries)-queriesBefore, value(options)-optionsBefore; q != 1 || o != 1 {
		t.Errorf("%v queries and %v options are counted", q, o)
	}
}
