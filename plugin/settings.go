package dnstrace

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// CoreDNS tells a plugin little of the others. This file has all that is read of their fields, to know what a
// span or an answer of them means; nothing is written. A field that another version does not have leaves
// something unknown, and a test fails for it.

const (
	cachePlugin   = "cache"
	forwardPlugin = "forward"
	grpcPlugin    = "grpc"
	// unknownPeer is where an attempt of grpc goes, whose spans do not say.
	unknownPeer = "?"
)

// ordinary are the plugins of CoreDNS that are called for nearly every query, and open no spans: they get to
// see none, which would cost five allocations each.
var ordinary = []string{"local", "dns64", "siit", "acl", "any", "chaos", "loadbalance", "tsig", cachePlugin}

// isOrdinary reports whether h is one of them.
func isOrdinary(h plugin.Handler) bool {
	return slices.Contains(ordinary, h.Name()) &&
		strings.HasPrefix(fieldsOf(h).Type().PkgPath(), "github.com/coredns/coredns/plugin/")
}

// isUnnamedAttempt reports whether a span is an attempt that does not say so: grpc's.
func isUnnamedAttempt(parent, name string) bool { return parent == grpcPlugin && name == "query" }

// waitsFor reports whether a cache that has stale data verified waits for what is written to w: a prefetch
// writes to something else.
func waitsFor(w dns.ResponseWriter) bool {
	v := fieldsOf(w)
	if inner := field(v, "ResponseWriter"); v.Type().Name() == "pluginWriter" && inner.IsValid() { // since CoreDNS 1.15
		v = fieldsOf(inner.Interface())
	}
	return v.Type().Name() == "verifyStaleResponseWriter"
}

// settings is what a handler is told to do.
type settings struct {
	asks bool // it asks upstreams, and hands them its message
	// Of cache.
	zones      zones
	bypass     zones  // that other plugins keep out of the cache
	mayBeStale bool   // it may answer with stale data
	keepTTL    bool   // it answers with the TTL that the upstream gave
	staleTTL   uint32 // of stale data; 0 is also its default
	verifies   bool   // it has stale data verified in the background, while the query waits
	// Of forward.
	readTimeout time.Duration // 0: unknown
	failover    bool          // it tries another upstream for some rcodes
	next        *settings     // of the forward after it in the server block
	// Of grpc.
	addrs     []string // in the order of its attempts; empty where that varies
	stampsAll bool     // all of them may get the option
}

// settingsOf reads the settings of h.
func (d *Dnstrace) settingsOf(h plugin.Handler) *settings {
	v, s := fieldsOf(h), new(settings)
	switch h.Name() {
	case cachePlugin:
		s.zones, s.bypass = texts(v, "Zones"), texts(v, "bypass")
		s.mayBeStale, s.keepTTL = mayBeSet(v, "staleUpTo"), mayBeSet(v, "keepttl")
		s.verifies = number(v, "verifyStaleTimeout") > 0 // versions without it do not verify in the background
		s.staleTTL = uint32(number(v, "staleTTL") / int64(time.Second))
	case forwardPlugin:
		s.asks, s.failover = true, mayBeSet(v, "failoverRcodes")
		for _, p := range elements(v, "proxies") {
			s.readTimeout = time.Duration(number(p, "readTimeout"))
		}
		if next := v.FieldByName("Next"); next.IsValid() && next.CanInterface() {
			if h, ok := next.Interface().(plugin.Handler); ok && h.Name() == forwardPlugin {
				s.next = d.settingsOf(h)
			}
		}
	case grpcPlugin:
		s.asks = true
		for _, p := range elements(v, "proxies") {
			if addr := field(p, "addr"); addr.Kind() == reflect.String {
				s.addrs = append(s.addrs, addr.String())
			}
		}
		s.stampsAll = d.stampsAll(s.addrs)
		if policy := v.FieldByName("p"); len(s.addrs) > 1 && (!policy.IsValid() || policy.IsZero() || policy.Elem().Type().String() != "*grpc.sequential") {
			s.addrs = nil
		}
	}
	return s
}

// settings returns what is known of the handler of a hop.
func (s *span) settings() *settings {
	switch {
	case s == nil: // the record was full
	case s.calledBy != nil:
		return s.calledBy.known()
	case s.name == forwardPlugin:
		// The forwards of a server block know each other, and have nothing between them.
		if next := s.parent.hop().settings().next; next != nil {
			return next
		}
	}
	return new(settings)
}

// tellsStale reports whether an answer of the cache whose least TTL is ttl, and not 0, would have another one
// if it were stale.
func (s *settings) tellsStale(ttl uint32, known bool) bool {
	if s.staleTTL > 0 {
		return known && ttl != s.staleTTL
	}
	return known && !s.keepTTL
}

// fieldsOf returns the struct that h is or points to, or an empty one.
func fieldsOf(h any) reflect.Value {
	v := reflect.Indirect(reflect.ValueOf(h))
	if v.Kind() != reflect.Struct {
		return reflect.ValueOf(struct{}{})
	}
	return v
}

// field returns the field of a struct, or no value where v has none of that name.
func field(v reflect.Value, name string) reflect.Value {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// mayBeSet reports whether the field of that name is set, or does not exist in this version of the plugin.
func mayBeSet(v reflect.Value, name string) bool {
	f := field(v, name)
	return !f.IsValid() || !f.IsZero()
}

// number returns the value of a whole number, or 0.
func number(v reflect.Value, name string) int64 {
	if f := field(v, name); f.IsValid() && f.CanInt() {
		return f.Int()
	}
	return 0
}

// elements returns what a slice holds or points to.
func elements(v reflect.Value, name string) (all []reflect.Value) {
	f := field(v, name)
	if f.Kind() != reflect.Slice {
		return nil
	}
	for i := range f.Len() {
		all = append(all, reflect.Indirect(f.Index(i)))
	}
	return all
}

// texts returns the strings of a slice.
func texts(v reflect.Value, name string) (all []string) {
	for _, e := range elements(v, name) {
		all = append(all, e.String())
	}
	return all
}
