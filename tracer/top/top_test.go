package top

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

type change func(*trace.Trace)

// lookup is answered in a millisecond, unless it is changed.
func lookupOf(at time.Duration, changes ...change) *trace.Trace {
	d := trace.SecondsPtr(time.Millisecond)
	t := &trace.Trace{
		Header: trace.Header{Time: start.Add(at)}, QName: "example.com.", QType: "A", RCode: "NOERROR", Duration: d, Outcome: trace.OutcomeAnswered,
		Exchange: &trace.Exchange{DNS: trace.DNS{ClientIP: netip.MustParseAddr("10.244.0.4"), ClientPort: 1234}, Transmissions: 1},
	}
	for _, c := range changes {
		c(t)
	}
	return t
}

func took(d time.Duration) change {
	return func(t *trace.Trace) { t.Duration = trace.SecondsPtr(d) }
}

func pod(name string) change {
	return func(t *trace.Trace) { t.Client = &trace.Endpoint{Namespace: "demo", Pod: name, Process: "app"} }
}

func unanswered(t *trace.Trace) {
	t.Outcome, t.RCode, t.Duration = trace.OutcomeUnanswered, "", nil
	t.Exchange.Transmissions = 2
}

// untaken makes the response come when its client has no socket any more.
func untaken(t *trace.Trace) {
	t.Outcome, t.Duration = trace.OutcomeDropped, nil
	ex := t.Exchange
	ex.Outcome, ex.Path = trace.OutcomeDropped, trace.PathOf(trace.Sighting{Message: trace.MessageQuery, Direction: trace.DirectionTX, Device: trace.Device{NetNS: 7}})
	ex.Milestones.Query.Left = trace.MilestoneAt(0)
	ex.Drops = []trace.Drop{{Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", NetNS: 7}}
}

func rcode(code string) change { return func(t *trace.Trace) { t.RCode = code } }

func asked(attempts ...trace.Attempt) change {
	return func(t *trace.Trace) {
		for i := range attempts {
			t.Upstreams = append(t.Upstreams, trace.Upstream{Attempt: &attempts[i]})
		}
	}
}

func attempt(address, outcome string, d time.Duration) trace.Attempt {
	return trace.Attempt{Address: address, Outcome: outcome, Duration: trace.SecondsPtr(d)}
}

func TestClients(t *testing.T) {
	for _, tc := range []struct {
		name    string
		lookups []*trace.Trace
		want    []string
	}{
		{"none", nil, nil},
		{"pods, the one with timeouts first", []*trace.Trace{
			lookupOf(0, pod("cart")), lookupOf(time.Second, pod("cart"), took(3*time.Millisecond)),
			lookupOf(2*time.Second, pod("checkout"), unanswered),
		}, []string{
			"demo/checkout 1 lookups 0.50/s 1 timeouts 1 resent 0 nxdomain 0 failed -",
			"demo/cart 2 lookups 1.00/s 0 timeouts 0 resent 0 nxdomain 0 failed min 1ms avg 2ms max 3ms",
		}},
		{"the answer of another server was taken", []*trace.Trace{lookupOf(0, pod("web")), lookupOf(0, pod("web"), untaken)}, []string{
			"demo/web 2 lookups 2.00/s 0 timeouts 0 resent 0 nxdomain 0 failed min 1ms avg 1ms max 1ms",
		}},
		{"the client had closed its socket", []*trace.Trace{lookupOf(0, pod("web"), untaken, func(t *trace.Trace) { t.Diagnosis = []trace.Finding{{Code: "client-gave-up"}} })}, []string{
			"demo/web 1 lookups 1.00/s 1 timeouts 0 resent 0 nxdomain 0 failed -",
		}},
		{"codes", []*trace.Trace{lookupOf(0, rcode("NXDOMAIN")), lookupOf(0, rcode("SERVFAIL")), lookupOf(0, rcode("REFUSED")), lookupOf(0)}, []string{
			"10.244.0.4 4 lookups 4.00/s 0 timeouts 0 resent 1 nxdomain 2 failed min 1ms avg 1ms max 1ms",
		}},
		{"names", []*trace.Trace{
			lookupOf(0, func(t *trace.Trace) { t.Client = &trace.Endpoint{Process: "dig"} }),
			lookupOf(0, func(t *trace.Trace) { t.Client = &trace.Endpoint{Container: "web", Process: "nginx"} }),
			lookupOf(0, func(t *trace.Trace) { t.Client = &trace.Endpoint{Pod: "lone"} }),
			lookupOf(0, func(t *trace.Trace) { t.Exchange.ClientIP = netip.Addr{} }),
			lookupOf(0, func(t *trace.Trace) { t.Exchange.ClientIP, t.Client = netip.Addr{}, &trace.Endpoint{Process: "dig"} }),
			lookupOf(0, func(t *trace.Trace) {
				t.Exchange, t.Query = nil, &trace.Query{DNS: trace.DNS{ClientIP: netip.MustParseAddr("fd00::4")}}
			}),
		}, []string{"10.244.0.4 dig ", "dig ", "fd00::4 ", "lone ", "unknown ", "web nginx "}},
	} {
		s := New(Config{})
		for _, l := range tc.lookups {
			s.Add(l)
		}
		v := s.View(s.Latest())
		var got []string
		for _, c := range v.Clients {
			latency := "-"
			if l := c.Latency; l != nil {
				latency = fmt.Sprintf("min %v avg %v max %v", l.Min.Duration(), l.Avg.Duration(), l.Max.Duration())
			}
			got = append(got, fmt.Sprintf("%s %d lookups %.2f/s %d timeouts %d resent %d nxdomain %d failed %s",
				c.Client, c.Lookups, c.PerSecond, c.Timeouts, c.Resent, c.NXDomain, c.Failed, latency))
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: %q", tc.name, got)
			continue
		}
		for i := range got {
			if len(got[i]) < len(tc.want[i]) || got[i][:len(tc.want[i])] != tc.want[i] {
				t.Errorf("%s: got %q, want %q", tc.name, got[i], tc.want[i])
			}
		}
	}
}

func TestUpstreams(t *testing.T) {
	const a, b, c, d, e = "192.168.49.1:53", "192.168.49.2:53", "192.168.49.3:53", "192.168.49.4:53", "192.168.49.5:53"
	seen := &trace.Exchange{ServerIP: netip.MustParseAddr("192.168.49.3"), ServerPort: 53, Outcome: trace.OutcomeAnswered,
		DNS: trace.DNS{RCode: "SERVFAIL", Duration: trace.SecondsPtr(time.Millisecond)}, Transmissions: 1}
	// What came of this one could not be taken, and CoreDNS answered FORMERR in its stead.
	spoiled := attempt(e, trace.OutcomeOK, time.Millisecond)
	rejected := &trace.Exchange{Outcome: trace.OutcomeUnanswered, Rejected: []trace.Rejection{{Why: trace.RejectedQuestion}}, Transmissions: 1}
	s := New(Config{})
	s.Add(lookupOf(0, func(t *trace.Trace) { t.Upstreams = []trace.Upstream{{Attempt: &spoiled, Exchange: rejected}} }))
	waited := attempt(e, trace.OutcomeTimeout, 2*time.Second) // in vain, for another
	s.Add(lookupOf(0, func(t *trace.Trace) { t.Upstreams = []trace.Upstream{{Attempt: &waited, Exchange: rejected}} }))
	s.Add(lookupOf(0, asked(attempt(a, trace.OutcomeTimeout, 2*time.Second), attempt(b, trace.OutcomeOK, time.Millisecond))))
	s.Add(lookupOf(0, asked(attempt(b, trace.OutcomeOK, 3*time.Millisecond))))
	s.Add(lookupOf(0, asked(attempt(a, trace.OutcomeError, 0))))
	s.Add(lookupOf(0, asked(attempt(d, trace.OutcomeFailed, 0), attempt(d, "", 0))))
	// Only packets, of an upstream that has an upstream itself.
	s.Add(lookupOf(0, func(t *trace.Trace) {
		t.Upstreams = []trace.Upstream{{Exchange: seen, Upstreams: []trace.Upstream{{Attempt: &trace.Attempt{Address: b, Outcome: trace.OutcomeTimeout}}}}}
	}))
	// Only the server's own record.
	s.Add(lookupOf(0, func(t *trace.Trace) {
		t.Query = &trace.Query{Upstreams: []trace.Attempt{attempt(c, trace.OutcomeOK, time.Millisecond)}}
	}))
	var got []string
	for _, u := range s.View(start).Upstreams {
		got = append(got, fmt.Sprintf("%s %s %d attempts %d timeouts %d failed", u.Upstream, u.Health, u.Attempts, u.Timeouts, u.Failed))
	}
	want := []string{b + " failing 3 attempts 1 timeouts 0 failed", a + " down 2 attempts 1 timeouts 1 failed", c + " failing 2 attempts 0 timeouts 1 failed", d + " failing 2 attempts 0 timeouts 1 failed", e + " down 2 attempts 0 timeouts 2 failed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What CoreDNS does in the background is no client's lookup, and no timeout of
// one, but tells of the upstream as any other.
func TestRefresh(t *testing.T) {
	s := New(Config{})
	s.Add(lookupOf(0, pod("cart")))
	s.Add(lookupOf(time.Second, asked(attempt("192.168.49.1:53", trace.OutcomeTimeout, 2*time.Second)), func(t *trace.Trace) {
		t.Exchange, t.Outcome, t.RCode, t.Duration = nil, trace.OutcomeUnanswered, "", nil
	}))
	v := s.View(start)
	if len(v.Clients) != 1 || v.Clients[0].Client != "demo/cart" || v.Total.Lookups != 1 || v.Total.Timeouts != 0 {
		t.Errorf("clients %+v, total %+v", v.Clients, v.Total)
	}
	if len(v.Upstreams) != 1 || v.Upstreams[0].Attempts != 1 || v.Upstreams[0].Timeouts != 1 {
		t.Errorf("upstreams %+v", v.Upstreams)
	}
}

// Percentiles keep what they promise, whatever the distribution.
func TestPercentiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := New(Config{})
	var all []time.Duration
	for range 20000 {
		d := time.Duration(rng.ExpFloat64() * rng.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		s.Add(lookupOf(time.Duration(rng.Int64N(int64(time.Minute))), took(d)))
	}
	slices.Sort(all)
	l := s.View(start).Clients[0].Latency
	for _, tc := range []struct {
		got  trace.Seconds
		want time.Duration
	}{{l.P50, all[len(all)/2-1]}, {l.P99, all[len(all)*99/100-1]}} {
		if off := float64(tc.got.Duration())/float64(tc.want) - 1; off < -1.1*accuracy || off > 1.1*accuracy {
			t.Errorf("got %v, exact %v", tc.got.Duration(), tc.want)
		}
	}
	if l.Min.Duration() != all[0] || l.Max.Duration() != all[len(all)-1] {
		t.Errorf("min %v, max %v", l.Min.Duration(), l.Max.Duration())
	}
}

// The busiest second, whatever the order in which lookups are reported, and across the parts
// of a window.
func TestPeak(t *testing.T) {
	s := New(Config{Window: 10 * time.Second})
	for _, at := range []time.Duration{
		0, 100 * time.Millisecond, 2500 * time.Millisecond, 2100 * time.Millisecond, 950 * time.Millisecond, 2900 * time.Millisecond,
		2 * time.Second, 200 * time.Millisecond, 5 * time.Second,
	} {
		s.Add(lookupOf(at, asked(attempt("a", trace.OutcomeOK, 0), attempt("a", trace.OutcomeOK, 0))))
	}
	v := s.View(start.Add(6 * time.Second))
	if c, u := v.Clients[0].Peak, v.Upstreams[0].Peak; c != 4 || u != 8 {
		t.Errorf("peak of lookups %d, want 4; of attempts %d, want 8", c, u)
	}
	// That second leaves the window.
	if p := s.View(start.Add(14 * time.Second)).Clients[0].Peak; p != 1 {
		t.Errorf("peak %d after its time, want 1", p)
	}
	// So late that its place is taken: it counts as a lookup, not in its second.
	s = New(Config{})
	s.Add(lookupOf(lateness * time.Second))
	s.Add(lookupOf(0))
	if c := s.View(start).Clients[0]; c.Peak != 1 || c.Lookups != 2 {
		t.Errorf("%+v", c)
	}
}

// One outlier among few is what the 99th percentile is there to show.
func TestPercentilesOfFew(t *testing.T) {
	s := New(Config{})
	for i := range 5 {
		s.Add(lookupOf(0, took(time.Duration(i+1)*time.Second)))
	}
	l := s.View(start).Clients[0].Latency
	if p50, p99 := l.P50.Duration().Round(100*time.Millisecond), l.P99.Duration().Round(100*time.Millisecond); p50 != 3*time.Second || p99 != 5*time.Second {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
}

func TestWindow(t *testing.T) {
	s := New(Config{Window: time.Minute})
	for i := range 300 {
		s.Add(lookupOf(time.Duration(i) * time.Second))
	}
	v := s.View(start.Add(300 * time.Second))
	if n := v.Total.Lookups; n < 60 || n > 66 || v.Clients[0].Lookups != n || len(s.slots) > parts+1 {
		t.Errorf("%d lookups of a minute, in %d parts", n, len(s.slots))
	}
	if r := v.Clients[0].PerSecond; r < 0.95 || r > 1.05 {
		t.Errorf("%v a second", r)
	}
	s.Add(lookupOf(0))
	if v := s.View(start.Add(310 * time.Second)); v.Late != 1 || v.Total.Lookups > 56 {
		t.Errorf("%d late, %d lookups", v.Late, v.Total.Lookups)
	}
	// Nothing comes any more.
	if v := s.View(start.Add(time.Hour)); v.Total.Lookups != 0 || v.Clients != nil || len(s.slots) != 0 {
		t.Errorf("an hour later: %+v", v)
	}
}

// What is not distinguished is still counted.
func TestNamesAreBounded(t *testing.T) {
	s := New(Config{MaxNames: 10})
	for i := range 1000 {
		s.Add(lookupOf(0, pod(fmt.Sprint(i)), asked(attempt(fmt.Sprint(i), trace.OutcomeOK, 0))))
	}
	v := s.View(start)
	if len(v.Clients) != 11 || len(v.Upstreams) != 11 {
		t.Fatalf("%d clients, %d upstreams", len(v.Clients), len(v.Upstreams))
	}
	if c := v.Clients[0]; c.Client != Others || c.Lookups != 990 {
		t.Errorf("%+v", c)
	}
}

func TestSampledLookupsAreNamed(t *testing.T) {
	rate := 0.1
	s := New(Config{})
	s.Add(lookupOf(0, func(t *trace.Trace) { t.Exchange, t.Query = nil, &trace.Query{Sample: &rate} }))
	// The tracer sees every lookup, whatever CoreDNS records.
	s.Add(lookupOf(0, func(t *trace.Trace) { t.Query = &trace.Query{Sample: &rate} }))
	if v := s.View(start); v.Total.Sampled != 1 || v.Total.Lookups != 2 {
		t.Errorf("%+v", v.Total)
	}
}

func TestSort(t *testing.T) {
	at := func(d time.Duration) *Latency {
		s := trace.Seconds(d)
		return &Latency{Min: s, Avg: 2 * s, P50: -s, P99: s, Max: s}
	}
	v := View{Clients: []Client{
		{Client: "a", Lookups: 5, Timeouts: 1, Latency: at(3)}, {Client: "b", Lookups: 7, Peak: 3, Failed: 2, Latency: at(1)}, {Client: "c", Lookups: 6, Timeouts: 1},
	}}
	for _, tc := range []struct {
		by      Key
		reverse bool
		want    string
	}{
		{ByTimeouts, false, "cab"}, {ByTimeouts, true, "bca"}, {ByVolume, false, "bca"}, {ByFailed, false, "bca"}, {ByPeak, false, "bca"}, {ByName, false, "abc"},
		{ByName, true, "cba"}, {ByMin, false, "abc"}, {ByAvg, false, "abc"}, {ByP50, false, "bac"}, {ByP99, false, "abc"}, {ByMax, true, "bac"},
	} {
		v.Sort(tc.by, tc.reverse)
		got := ""
		for _, c := range v.Clients {
			got += c.Client
		}
		if got != tc.want {
			t.Errorf("by %s, reverse %v: got %s, want %s", tc.by, tc.reverse, got, tc.want)
		}
	}
}
