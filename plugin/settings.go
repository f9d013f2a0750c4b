package dnstrace

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"
)

// CoreDNS tells a plugin little of the others. This file has all that is read of their fields, to
// know what a span or an answer of them means; nothing is written. A field that another version
// does not have leaves something unknown, and a test fails for it.

const (
	cachePlugin   = "cache"
	forwardPlugin = "forward"
	grpcPlugin    = "grpc"
	// unknownPeer is where an attempt of grpc goes, whose spans do not say.
	unknownPeer = "?"
)

// ordinary are the plugins of CoreDNS that are called for nearly every query, and open no spans:
// they get to see none, which would cost five allocations each.
var ordinary = []string{"local", "dns64", "siit", "acl", "any", "chaos", "loadbalance", "tsig", cachePlugin}

// isOrdinary reports whether h is one of them.
func isOrdinary(h plugin.Handler) bool {
	return slices.Contains(ordinary, h.Name()) &&
		strings.HasPrefix(fieldsOf(h).Type().PkgPath(), "github.com/coredns/coredns/plugin/")
}

// isUnnamedAttempt reports whether a span is an attempt that does not say so: grpc's.
func isUnnamedAttempt(parent, name string) bool { return parent == grpcPlugin && name == "query" }

// settings is what a handler is told to do.
type settings struct {
	asks bool // it asks upstreams, and hands them its message
	// Of cache.
	zones      []string
	bypass     []string // zones that other plugins keep out of the cache
	mayBeStale bool     // it may answer with stale data
	keepTTL    bool     // it answers with the TTL that the upstream gave
	staleTTL   uint32   // of stale data; 0 is also its default
	verifies   bool     // it has stale data verified in the background, while the query waits
	prefetches bool
	// Of forward.
	readTimeout time.Duration // 0: unknown
	failover    bool          // it tries another upstream for some rcodes
	next        *settings     // of the forward after it in the server block
	// Of grpc.
	addrs []string // in the order of its attempts; empty where that varies
	named bool     // all of them may get the option
}

// settingsOf reads the settings of h.
func (d *Dnstrace) settingsOf(h plugin.Handler) *settings {
	v, s := fieldsOf(h), new(settings)
	switch h.Name() {
	case cachePlugin:
		s.zones, s.bypass = texts(v.FieldByName("Zones")), texts(v.FieldByName("bypass"))
		s.mayBeStale, s.keepTTL = mayBeSet(v, "staleUpTo"), mayBeSet(v, "keepttl")
		s.verifies = number(v, "verifyStaleTimeout") > 0 // versions without it do not verify in the background
		s.prefetches = mayBeSet(v, "prefetch")
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
			s.addrs = append(s.addrs, p.FieldByName("addr").String())
		}
		s.named = d.stampsAll(s.addrs)
		policy := v.FieldByName("p")
		if len(s.addrs) > 1 && !(policy.IsValid() && !policy.IsZero() && policy.Elem().Type().String() == "*grpc.sequential") {
			s.addrs = nil
		}
	}
	return s
}

// tellsStale reports whether an answer of the cache whose least TTL is ttl, and not 0,
// would have another one if it were stale.
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

// mayBeSet reports whether the field of that name is set, or does not exist in this
// version of the plugin.
func mayBeSet(v reflect.Value, name string) bool {
	f := v.FieldByName(name)
	if f.IsValid() && f.Kind() == reflect.Slice {
		return f.Len() > 0
	}
	return !f.IsValid() || !f.IsZero()
}

// elements returns the structs that a slice holds or points to.
func elements(v reflect.Value, name string) []reflect.Value {
	f := v.FieldByName(name)
	if !f.IsValid() || f.Kind() != reflect.Slice {
		return nil
	}
	var all []reflect.Value
	for i := range f.Len() {
		if e := reflect.Indirect(f.Index(i)); e.Kind() == reflect.Struct {
			all = append(all, e)
		}
	}
	return all
}

// texts returns the strings of a slice, or nil.
func texts(f reflect.Value) []string {
	if !f.IsValid() || f.Kind() != reflect.Slice {
		return nil
	}
	var all []string
	for i := range f.Len() {
		all = append(all, f.Index(i).String())
	}
	return all
}

// number returns the value of a whole number, or 0.
func number(v reflect.Value, name string) int64 {
	if f := v.FieldByName(name); f.IsValid() && f.CanInt() {
		return f.Int()
	}
	return 0
}
