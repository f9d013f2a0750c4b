package dnstrace

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// CoreDNS tells a plugin little about the others. Only this file reads their private fields, to interpret their spans
// and answers, and writes none. A field that another version lacks leaves something unknown, and fails a test.

const (
	cachePlugin   = "cache"
	forwardPlugin = "forward"
	grpcPlugin    = "grpc"
	// unknownPeer is the address of an attempt of grpc, whose spans have none.
	unknownPeer = "?"
)

// ordinary are the plugins of CoreDNS that handle nearly every query and open no spans. They see none, because
// CoreDNS would open one for the next plugin, with five allocations.
var ordinary = []string{"local", "dns64", "siit", "acl", "any", "chaos", "loadbalance", "tsig", cachePlugin}

// isOrdinary reports whether h is one of them.
func isOrdinary(h plugin.Handler) bool {
	return slices.Contains(ordinary, h.Name()) &&
		strings.HasPrefix(fieldsOf(reflect.ValueOf(h)).Type().PkgPath(), "github.com/coredns/coredns/plugin/")
}

// isUnnamedAttempt reports whether a span is an attempt without a peer address, which grpc opens.
func isUnnamedAttempt(parent, name string) bool { return parent == grpcPlugin && name == "query" }

// waitsFor reports whether a cache that verifies stale data waits for what is written to w, which it does not for a
// prefetch.
func waitsFor(w dns.ResponseWriter) bool {
	v := fieldsOf(reflect.ValueOf(w))
	if inner := v.FieldByName("ResponseWriter"); v.Type().Name() == "pluginWriter" && inner.IsValid() { // since CoreDNS 1.15
		v = fieldsOf(inner.Elem())
	}
	return v.Type().Name() == "verifyStaleResponseWriter"
}

// settings are those of a handler.
type settings struct {
	asks bool // it sends its message to upstreams
	// Of cache.
	zones      zones
	bypass     zones  // that other plugins keep out of the cache
	mayBeStale bool   // it may answer with stale data
	keepTTL    bool   // it answers with the upstream's TTL
	staleTTL   uint32 // of stale data; 0 is also its default
	verifies   bool   // it verifies stale data in the background, while the query waits
	// Of forward.
	readTimeout time.Duration // 0: unknown
	failover    bool          // it tries another upstream for some rcodes
	next        *settings     // of the forward after it in the server block
	// Of grpc.
	addrs     []string // in the order of its attempts; empty: unknown
	stampsAll bool     // all upstreams get the option
}

// settingsOf reads the settings of h.
func (d *Dnstrace) settingsOf(h plugin.Handler) *settings {
	v, s := fieldsOf(reflect.ValueOf(h)), new(settings)
	switch h.Name() {
	case cachePlugin:
		s.zones, s.bypass = texts(v, "Zones"), texts(v, "bypass")
		s.mayBeStale, s.keepTTL = mayBeSet(v, "staleUpTo"), mayBeSet(v, "keepttl")
		s.verifies = number(v, "verifyStaleTimeout") > 0 // versions without it do not verify in the background
		s.staleTTL = uint32(number(v, "staleTTL") / int64(time.Second))
	case forwardPlugin:
		s.asks, s.failover = true, mayBeSet(v, "failoverRcodes")
		for _, p := range elements(v, "proxies") {
			s.readTimeout = time.Duration(number(fieldsOf(p), "readTimeout"))
		}
		if next := v.FieldByName("Next"); next.IsValid() && next.CanInterface() {
			if h, ok := next.Interface().(plugin.Handler); ok && h.Name() == forwardPlugin {
				s.next = d.settingsOf(h)
			}
		}
	case grpcPlugin:
		s.asks = true
		for _, p := range elements(v, "proxies") {
			if addr := fieldsOf(p).FieldByName("addr"); addr.Kind() == reflect.String {
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

// settings returns the settings of the handler of a hop.
func (s *span) settings() *settings {
	switch {
	case s == nil: // the record was full
	case s.calledBy != nil:
		return s.calledBy.known()
	case s.name == forwardPlugin:
		// The forwards of a server block call each other directly.
		if next := s.parent.hop().settings().next; next != nil {
			return next
		}
	}
	return new(settings)
}

// tellsStale reports whether an answer of the cache whose smallest TTL is ttl, and not 0, would have another one if it
// were stale.
func (s *settings) tellsStale(ttl uint32, known bool) bool {
	if s.staleTTL > 0 {
		return known && ttl != s.staleTTL
	}
	return known && !s.keepTTL
}

// fieldsOf returns the struct that v is or points to, or an empty one.
func fieldsOf(v reflect.Value) reflect.Value {
	if v = reflect.Indirect(v); v.Kind() == reflect.Struct {
		return v
	}
	return reflect.ValueOf(struct{}{})
}

// mayBeSet reports whether the field of that name is set, or does not exist in this version of the plugin.
func mayBeSet(v reflect.Value, name string) bool {
	f := v.FieldByName(name)
	return !f.IsValid() || !f.IsZero()
}

// number returns the value of a whole number, or 0.
func number(v reflect.Value, name string) int64 {
	if f := v.FieldByName(name); f.CanInt() {
		return f.Int()
	}
	return 0
}

// elements returns what a slice holds.
func elements(v reflect.Value, name string) (all []reflect.Value) {
	if f := v.FieldByName(name); f.Kind() == reflect.Slice {
		for _, e := range f.Seq2() {
			all = append(all, e)
		}
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
