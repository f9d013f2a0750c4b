package dnstrace

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// findHop returns the hop before a plugin of a server.
func findHop(t *testing.T, s *server, name string) *hop {
	t.Helper()
	for next := s.plugin().Next; next != nil; {
		h, ok := next.(*hop)
		if !ok {
			break
		}
		if h.name == name {
			return h
		}
		next, _ = fieldsOf(reflect.ValueOf(h.next)).FieldByName("Next").Interface().(plugin.Handler)
	}
	t.Fatalf("there is no hop before %s", name)
	return nil
}

// Each field of another plugin that is read: a CoreDNS that renames it, or gives it another
// type, fails here.
func TestSettings(t *testing.T) {
	for _, tc := range []struct {
		field, plugin, corefile string
		get                     func(*settings) any
		want                    any
	}{
		{"Zones", cachePlugin, "cache 30 example.org example.net", func(s *settings) any { return s.zones }, []string{"example.org.", "example.net."}},
		{"staleUpTo", cachePlugin, "cache {\n serve_stale\n}", func(s *settings) any { return s.mayBeStale }, true},
		{"staleUpTo", cachePlugin, "cache", func(s *settings) any { return s.mayBeStale }, false},
		{"keepttl", cachePlugin, "cache {\n keepttl\n}", func(s *settings) any { return s.keepTTL }, true},
		{"keepttl", cachePlugin, "cache", func(s *settings) any { return s.keepTTL }, false},
		{"staleTTL", cachePlugin, "cache {\n serve_stale 1h immediate\n serve_stale_ttl 7s\n}", func(s *settings) any { return s.staleTTL }, uint32(7)},
		{"verifyStaleTimeout", cachePlugin, "cache {\n serve_stale 1h verify 150ms\n}", func(s *settings) any { return s.verifies }, true},
		{"verifyStaleTimeout", cachePlugin, "cache {\n serve_stale 1h verify 0s\n}", func(s *settings) any { return s.verifies }, false},
		{"proxies, readTimeout", forwardPlugin, "forward . 192.0.2.1", func(s *settings) any { return s.readTimeout }, 2 * time.Second},
		{"readTimeout", forwardPlugin, "forward . 192.0.2.1 {\n read_timeout 700ms\n}", func(s *settings) any { return s.readTimeout }, 700 * time.Millisecond},
		{"failoverRcodes", forwardPlugin, "forward . 192.0.2.1 {\n failover SERVFAIL\n}", func(s *settings) any { return s.failover }, true},
		{"failoverRcodes", forwardPlugin, "forward . 192.0.2.1", func(s *settings) any { return s.failover }, false},
		{"Next", forwardPlugin, "forward example.org 192.0.2.1\n forward . 192.0.2.1", func(s *settings) any { return s.next != nil && s.next.asks }, true},
		{"Next", forwardPlugin, "forward . 192.0.2.1\n whoami", func(s *settings) any { return s.next == nil }, true},
		{"proxies, addr", grpcPlugin, "grpc . 192.0.2.1:5", func(s *settings) any { return s.addrs }, []string{"192.0.2.1:5"}},
		{"p", grpcPlugin, "grpc . 192.0.2.1:5 192.0.2.2:5 {\n policy sequential\n}", func(s *settings) any { return s.addrs }, []string{"192.0.2.1:5", "192.0.2.2:5"}},
		{"p", grpcPlugin, "grpc . 192.0.2.1:5 192.0.2.2:5 {\n policy round_robin\n}", func(s *settings) any { return s.addrs }, []string(nil)},
	} {
		corefile := ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n " + tc.corefile + "\n}"
		if !supported(t, corefile) {
			continue
		}
		h := findHop(t, start(t, corefile), tc.plugin)
		if got := fmt.Sprint(tc.get(h.known())); got != fmt.Sprint(tc.want) {
			t.Errorf("%s of %s, with %q: got %s, want %v", tc.field, tc.plugin, tc.corefile, got, tc.want)
		}
	}
}

// Zones that other plugins keep out of the cache are known to it only when it has started. A
// CoreDNS before 1.15 knows none, and has their names in its cache.
func TestCacheBypass(t *testing.T) {
	s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n cache\n "+customName+" bypass\n}")
	s.ask("a.bypass.org.", dns.TypeA)
	s.ask("a.bypass.org.", dns.TypeA)
	want, status := "[]", trace.CacheHit
	if q := s.query(2); q.AnsweredBy == customName {
		want, status = "[bypass.org.]", trace.CacheNone
	}
	if got := fmt.Sprint(findHop(t, s, cachePlugin).known().bypass); got != want {
		t.Errorf("the zones that bypass the cache are %s, want %s", got, want)
	}
	if q := s.query(2); q.Cache != status {
		t.Errorf("the second query was answered by %s: cache %q, want %q", q.AnsweredBy, q.Cache, status)
	}
}

// What is not known is not taken for what is.
func TestUnknownSettings(t *testing.T) {
	type cache struct{ named }
	type forward struct{ named }
	d := new(Dnstrace)
	if s := d.settingsOf(cache{named{name: cachePlugin}}); !s.mayBeStale || !s.keepTTL {
		t.Errorf("a cache of which nothing is known: %+v", s)
	}
	if s := d.settingsOf(forward{named{name: forwardPlugin}}); !s.failover || s.readTimeout != 0 {
		t.Errorf("a forward of which nothing is known: %+v", s)
	}
	if got := new(span).failure(&span{name: forwardPlugin, parent: new(span)}); got != "failed" {
		t.Errorf("an attempt of it that another one followed: %s", got)
	}
}

// named is a handler of which only the name is known.
type named struct {
	plugin.Handler
	name string
}

func (n named) Name() string { return n.name }
