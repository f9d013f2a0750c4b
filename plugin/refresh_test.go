package dnstrace

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// aging is an upstream whose answers live for a second, and that takes delay
// from its second answer on. When it is down, it does not answer.
type aging struct {
	delay time.Duration
	down  atomic.Bool
	asked atomic.Int32
}

func (a *aging) serve(w dns.ResponseWriter, r *dns.Msg) {
	if a.asked.Add(1) > 1 {
		time.Sleep(a.delay)
	}
	if a.down.Load() {
		return
	}
	m := new(dns.Msg).SetReply(r)
	rr, _ := dns.NewRR(r.Question[0].Name + " 1 IN A 192.0.2.1")
	m.Answer = []dns.RR{rr}
	reply(w, m)
}

func (a *aging) start(t *testing.T, cache string) *server { return a.startBehind(t, "", cache) }

// startBehind starts a server with a plugin before dnstrace.
func (a *aging) startBehind(t *testing.T, early, cache string) *server {
	return start(t, `.:0 {
		bind 127.0.0.1
		`+early+`
		dnstrace {
			output file $RECORDS
		}
		cache {
			success 100 3600 1
			`+cache+`
		}
		forward . `+upstream(t, a.serve)+` {
			max_connect_attempts 2
			`+forwardOption(t, "read_timeout 200ms")+`
		}
	}`)
}

// expired is when an answer of aging is stale: older versions of cache count in
// whole seconds, and one that has none left still as fresh.
const expired = 2100 * time.Millisecond

// split returns the queries and the refreshes, each in order of time: a record
// is made after the answer, when the next query may be answered already.
func split(records []trace.Record) (queries []*trace.Query, refreshes []*trace.Refresh) {
	for _, r := range records {
		switch r := r.(type) {
		case *trace.Query:
			queries = append(queries, r)
		case *trace.Refresh:
			refreshes = append(refreshes, r)
		}
	}
	slices.SortFunc(queries, func(a, b *trace.Query) int { return a.Time.Compare(b.Time) })
	slices.SortFunc(refreshes, func(a, b *trace.Refresh) int { return a.Time.Compare(b.Time) })
	return queries, refreshes
}

func TestPrefetch(t *testing.T) {
	a := &aging{delay: 50 * time.Millisecond}
	s := a.start(t, "prefetch 1 1m 90%")
	s.ask("example.org.", dns.TypeA)
	s.ask("example.org.", dns.TypeA) // a hit, and its TTL is all but over
	queries, refreshes := split(s.wait(3))
	if len(refreshes) != 1 || len(queries) != 2 {
		t.Fatalf("%d queries, %d refreshes", len(queries), len(refreshes))
	}
	hit, refresh := queries[1], refreshes[0]
	if hit.Cache != trace.CacheHit || hops(hit.Hops) != "cache" || hit.AnsweredBy != "cache" {
		t.Errorf("query: cache %s, hops %s", hit.Cache, hops(hit.Hops))
	}
	if refresh.Cause != "prefetch" || hops(refresh.Hops) != "forward" || refresh.TraceID != hit.TraceID || !refresh.Time.After(hit.Time) {
		t.Errorf("refresh: %s, hops %s, trace %s", refresh.Cause, hops(refresh.Hops), refresh.TraceID)
	}
	if refresh.QName != "example.org." || refresh.RCode != "NOERROR" {
		t.Errorf("DNS fields: %+v", refresh.DNS)
	}
	if len(refresh.Upstreams) != 1 || refresh.Upstreams[0].Outcome != trace.OutcomeOK || refresh.Upstreams[0].Start < 0 {
		t.Errorf("attempts: %+v", refresh.Upstreams)
	}
	if d := refresh.Hops[0].Duration; d == nil || d.Duration() < a.delay {
		t.Errorf("the refresh took %v", d)
	}
}

func TestServeStale(t *testing.T) {
	a := &aging{delay: 50 * time.Millisecond}
	s := a.start(t, "serve_stale 1h immediate")
	staleLookups, staleRefreshes := lookups.WithLabelValues(labels(trace.CacheStale)...), refreshes.WithLabelValues(labels("stale")...)
	lookupsBefore, refreshesBefore := value(staleLookups), value(staleRefreshes)
	s.ask("example.org.", dns.TypeA)
	time.Sleep(expired)
	s.ask("example.org.", dns.TypeA)
	queries, refreshes := split(s.wait(3))
	if len(refreshes) != 1 || refreshes[0].Cause != "stale" || len(refreshes[0].Upstreams) != 1 {
		t.Fatalf("refreshes: %+v", refreshes)
	}
	if q := queries[1]; q.Cache != trace.CacheStale || hops(q.Hops) != "cache" {
		t.Errorf("cache %s, hops %s", q.Cache, hops(q.Hops))
	}
	if l, r := value(staleLookups)-lookupsBefore, value(staleRefreshes)-refreshesBefore; l != 1 || r != 1 {
		t.Errorf("%v stale lookups and %v refreshes of them are counted", l, r)
	}
}

// A refresh is one, and no part of its query, even if it is done before the answer was sent.
func TestRefreshBeforeTheAnswer(t *testing.T) {
	for _, tc := range []struct{ cache, want string }{
		{"serve_stale 1h immediate", trace.CacheStale},
		{"prefetch 1 1m 90%", trace.CacheHit},
		// The cache has stale data verified while a query waits, but this is no stale data.
		{"serve_stale 1h verify 150ms\n prefetch 1 1m 90%", trace.CacheHit},
	} {
		if !supported(t, ".:0 {\n cache {\n "+tc.cache+"\n }\n }") {
			continue
		}
		a := new(aging)
		s := a.startBehind(t, "early slow", tc.cache)
		s.ask("example.org.", dns.TypeA)
		if tc.want == trace.CacheStale {
			time.Sleep(expired)
		}
		s.ask("example.org.", dns.TypeA)
		queries, refreshes := split(s.wait(3))
		if len(refreshes) != 1 || len(queries) != 2 {
			t.Fatalf("%s: %d queries, %d refreshes", tc.cache, len(queries), len(refreshes))
		}
		q, f := queries[1], refreshes[0]
		if q.Cache != tc.want || hops(q.Hops) != "cache" || len(q.Upstreams) != 0 {
			t.Errorf("%s: cache %q, hops %s, attempts %s", tc.cache, q.Cache, hops(q.Hops), attempts(q.Upstreams))
		}
		if f.Cause != refreshCause(tc.want) || hops(f.Hops) != "forward" || len(f.Upstreams) != 1 || f.TraceID != q.TraceID {
			t.Errorf("%s: refresh for %s, hops %s, attempts %s", tc.cache, f.Cause, hops(f.Hops), attempts(f.Upstreams))
		}
	}
}

// With keepttl, an answer of the cache does not tell whether it is stale: only the cache does. Without
// serve_stale it never is.
func TestKeepTTL(t *testing.T) {
	for _, tc := range []struct {
		options, want string
		ages          bool
	}{
		{"keepttl", trace.CacheHit, false},
		{"keepttl\n serve_stale 1h immediate", reported(trace.CacheHit, ""), false},
		{"keepttl\n serve_stale 1h immediate", reported(trace.CacheStale, ""), true},
	} {
		if !supported(t, ".:0 {\n cache {\n "+tc.options+"\n }\n }") {
			continue
		}
		a := new(aging)
		s := a.start(t, tc.options)
		s.ask("example.org.", dns.TypeA)
		want := 2
		if tc.ages {
			time.Sleep(expired)
			want = 3
		}
		s.ask("example.org.", dns.TypeA)
		if queries, _ := split(s.wait(want)); queries[1].Cache != tc.want || hops(queries[1].Hops) != "cache" {
			t.Errorf("%s: cache %q, hops %s", tc.options, queries[1].Cache, hops(queries[1].Hops))
		}
	}
}

func TestServeStaleVerify(t *testing.T) {
	for _, tc := range []struct {
		name, cache string
		down        bool
		delay       time.Duration
		want        string // cache status, hops and attempts of the query
		refreshes   int
	}{
		{"fresh in time", "serve_stale 1h verify", false, 0, "miss: cache forward<cache: ok", 0},
		{"upstream down", "serve_stale 1h verify", true, 0, "stale: cache forward<cache: timeout timeout", 0},
		{"timeout, fresh in time", "serve_stale 1h verify 150ms", false, 20 * time.Millisecond, "miss: cache forward<cache: ok", 0},
		{"timeout, too late", "serve_stale 1h verify 50ms", false, 120 * time.Millisecond, "stale: cache: ", 1},
	} {
		if !supported(t, ".:0 {\n cache {\n "+tc.cache+"\n }\n }") {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			a := &aging{delay: tc.delay}
			s := a.start(t, tc.cache)
			s.ask("example.org.", dns.TypeA)
			time.Sleep(expired)
			a.down.Store(tc.down)
			s.ask("example.org.", dns.TypeA)
			queries, refreshes := split(s.wait(2 + tc.refreshes))
			q := queries[1]
			var outcomes []string
			for _, u := range q.Upstreams {
				outcomes = append(outcomes, u.Outcome)
			}
			if got := q.Cache + ": " + hops(q.Hops) + ": " + strings.Join(outcomes, " "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if len(refreshes) != tc.refreshes || tc.refreshes > 0 && refreshes[0].Cause != "stale" {
				t.Errorf("refreshes: %+v", refreshes)
			}
		})
	}
}

// A cache that is not asked for the name is none on the query's way.
func TestCacheOfOtherZone(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache 30 example.net
		forward . `+upstream(t, answerA)+`
	}`)
	s.ask("example.org.", dns.TypeA)
	s.ask("example.net.", dns.TypeA)
	queries, _ := split(s.wait(2))
	if queries[0].Cache != trace.CacheNone || queries[1].Cache != trace.CacheMiss {
		t.Errorf("cache %s, %s", queries[0].Cache, queries[1].Cache)
	}
}
