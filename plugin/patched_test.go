package dnstrace

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// patched says that this CoreDNS has the patches of docs/coredns, as .ci/test-coredns tests it too.
var patched = os.Getenv("DNSTRACE_COREDNS_PATCHED") != ""

// reported returns what a patched CoreDNS reports, or what can be derived without.
func reported[T any](exact, shown T) T {
	if patched {
		return exact
	}
	return shown
}

// A cache that says nothing on its span does not get to see it any more, which costs allocations.
func TestCacheSeesItsSpan(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache 30 example.org
		forward . `+upstream(t, answerA)+`
	}`)
	h := findHop(t, s, cachePlugin)
	s.ask("example.net.", dns.TypeA) // the cache is not for it, and says nothing
	s.wait(1)
	if h.hides() {
		t.Error("a cache that was not asked does not get to see its span")
	}
	s.ask("example.org.", dns.TypeA)
	s.wait(2)
	if got, want := h.hides(), reported(false, true); got != want {
		t.Errorf("the span is hidden from the cache: %t", got)
	}
}

// What a refresh is for is what the cache says that it answered with, whatever TTL that has.
func TestRefreshCauseOfKeptTTL(t *testing.T) {
	const cache = "keepttl\n serve_stale 1h immediate\n prefetch 1 1m 90%"
	if !supported(t, ".:0 {\n cache {\n "+cache+"\n }\n }") {
		t.Fatal("this cache has other options")
	}
	for _, tc := range []struct {
		cause string
		age   time.Duration
	}{{"prefetch", 0}, {"stale", expired}} {
		s := new(aging).start(t, cache)
		s.ask("example.org.", dns.TypeA)
		time.Sleep(tc.age)
		s.ask("example.org.", dns.TypeA)
		if _, refreshes := split(s.wait(3)); len(refreshes) != 1 || refreshes[0].Cause != reported(tc.cause, "") {
			t.Errorf("refreshes for %s: %+v", tc.cause, refreshes)
		}
	}
}

// An attempt has the error that its span has, the last one of a hop too.
func TestAttemptErrors(t *testing.T) {
	down, up := refusing(t), upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+down+` `+up+` {
			policy sequential
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	const refused = "connection refused"
	if got, want := s.query(1).Upstreams[0].Error, reported(refused, ""); (got != "") != (want != "") {
		t.Errorf("the error is %q, want one with %q", got, want)
	}
}

func init() {
	// A grpc that says whom it asks, after it began.
	behaviours["names"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		grpc := ot.SpanFromContext(ctx).Tracer().StartSpan(grpcPlugin, ot.ChildOf(ot.SpanFromContext(ctx).Context()))
		first := grpc.Tracer().StartSpan("query", ot.ChildOf(grpc.Context()))
		first.SetTag("peer.address", "192.0.2.1:443")
		first.LogKV("error.object", errors.New("no route"))
		first.Finish()
		second := grpc.Tracer().StartSpan("query", ot.ChildOf(grpc.Context()))
		second.SetTag("peer.address", "192.0.2.2:443")
		second.Finish()
		grpc.Finish()
		return replyTo(w, r)
	}
}

// What a patched grpc and cache do with their spans is understood of any CoreDNS.
func TestSpansThatTell(t *testing.T) {
	s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n "+customName+" names\n}")
	s.ask("example.org.", dns.TypeA)
	if got := attempts(s.query(1).Upstreams); got != "1 error 192.0.2.1:443, 2 ok 192.0.2.2:443" {
		t.Errorf("attempts: %s", got)
	}
	for _, tc := range []struct {
		tag  any
		want string
	}{{"hit", trace.CacheHit}, {"miss", trace.CacheMiss}, {"stale", trace.CacheStale}, {"else", ""}, {7, ""}} {
		q := &query{}
		q.ident = &q.own
		q.record.init(q)
		s := &span{Span: nothing, q: q, rec: &q.record, name: cachePlugin, isHop: true}
		q.hops = append(q.hops, s)
		s.SetTag(cacheStatusTag, tc.tag)
		if got := s.says; got != tc.want {
			t.Errorf("%v: %q, want %q", tc.tag, got, tc.want)
		}
		if got := q.cacheStatus(false, nil); got != tc.want {
			t.Errorf("%v: the cache is %q, want %q", tc.tag, got, tc.want)
		}
	}
}
