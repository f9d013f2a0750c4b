package dnstrace

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/proxy"
)

// Defaults of forward, for a version of it that has no such setting.
const (
	defaultReadTimeout = 2 * time.Second
	// forwardTimeout is how long forward tries in all.
	forwardTimeout = 5 * time.Second
	// attemptsPerUpstream is forward's limit where max_connect_attempts is not
	// set.
	attemptsPerUpstream = 2
)

// chain is what the plugins after this one are told to do, as far as it decides
// what a span means. CoreDNS has no way to ask, so it is read from the fields of
// the handlers; a field that another version does not have leaves its default.
type chain struct {
	cacheZones  []string
	cacheBypass []string      // zones that other plugins keep out of the cache
	stale       bool          // the cache may serve stale data, or it is not known that it does not
	staleTTL    uint32        // of serve_stale; 0 is also its default
	keepTTL     bool          // the cache answers with the TTL that the upstream gave
	refreshes   bool          // a cache may ask again in the background, or it is not known that none does
	readTimeout time.Duration // of forward; the shortest, where there are several
	failover    bool          // forward tries another upstream for some rcodes
	maxAttempts int           // of forward; the least, 0 is no limit
	forwards    []pool
	grpcAddrs   []string // of grpc, in the order of its attempts; empty where that varies
}

// pool is the upstreams of a forward.
type pool struct {
	proxies  []*proxy.Proxy
	maxFails uint32
}

// readChain reads the chain that starts with next.
func readChain(next plugin.Handler) chain {
	c := chain{readTimeout: defaultReadTimeout, refreshes: true}
	forwards, refreshes := 0, false
	for next != nil {
		v := reflect.Indirect(reflect.ValueOf(next))
		if v.Kind() != reflect.Struct {
			return c
		}
		switch next.Name() {
		case cachePlugin:
			if zones, ok := field(v, "Zones").([]string); ok {
				c.cacheZones = zones
			}
			c.cacheBypass = texts(v.FieldByName("bypass"))
			c.stale = mayBeSet(v, "staleUpTo")
			c.keepTTL = mayBeSet(v, "keepttl")
			c.staleTTL = uint32(integer(v, "staleTTL") / int64(time.Second))
			refreshes = refreshes || c.stale || mayBeSet(v, "prefetch")
		case forwardPlugin:
			c.addForward(v, forwards == 0)
			forwards++
			if f, ok := next.(interface{ List() []*proxy.Proxy }); ok {
				c.forwards = append(c.forwards, pool{f.List(), uint32(integer(v, "maxfails"))})
			}
		case grpcPlugin:
			c.addGRPC(v)
		}
		if !v.FieldByName("Next").IsValid() && !isStock(v) {
			return c
		}
		next, _ = field(v, "Next").(plugin.Handler)
	}
	c.refreshes = refreshes
	return c
}

// mayBeSet reports whether the field of that name is set, or does not exist in this
// version of the plugin.
func mayBeSet(v reflect.Value, name string) bool {
	f := v.FieldByName(name)
	return !f.IsValid() || !f.IsZero()
}

// isStock reports whether v comes with CoreDNS: then it has no handler after it
// that is not in Next.
func isStock(v reflect.Value) bool {
	return strings.HasPrefix(v.Type().PkgPath(), "github.com/coredns/coredns/plugin/")
}

func (c *chain) addForward(v reflect.Value, first bool) {
	if t := time.Duration(integer(v, "readTimeout")); t > 0 && (first || t < c.readTimeout) {
		c.readTimeout = t
	}
	if rcodes := v.FieldByName("failoverRcodes"); rcodes.IsValid() && rcodes.Kind() == reflect.Slice && rcodes.Len() > 0 {
		c.failover = true
	}
	limit := int(integer(v, "maxConnectAttempts"))
	if set := v.FieldByName("maxConnectAttemptsSet"); set.IsValid() && set.Kind() == reflect.Bool && !set.Bool() {
		if proxies := v.FieldByName("proxies"); proxies.IsValid() && proxies.Kind() == reflect.Slice {
			limit = attemptsPerUpstream * proxies.Len()
		}
	}
	if limit > 0 && (c.maxAttempts == 0 || limit < c.maxAttempts) {
		c.maxAttempts = limit
	}
}

// addGRPC reads where the attempts of grpc go.
func (c *chain) addGRPC(v reflect.Value) {
	var addrs []string
	if proxies := v.FieldByName("proxies"); proxies.IsValid() && proxies.Kind() == reflect.Slice {
		for i := range proxies.Len() {
			p := reflect.Indirect(proxies.Index(i))
			if p.Kind() != reflect.Struct {
				return
			}
			addrs = append(addrs, p.FieldByName("addr").String())
		}
	}
	policy := v.FieldByName("p")
	sequential := policy.IsValid() && !policy.IsZero() && policy.Elem().Type().String() == "*grpc.sequential"
	if len(addrs) == 1 || sequential {
		c.grpcAddrs = addrs
	}
}

// desperate reports whether a forward has marked all its upstreams down: then
// it asks one of them, and gives up where that fails.
func (c *chain) desperate() bool {
	for _, f := range c.forwards {
		if !slices.ContainsFunc(f.proxies, func(p *proxy.Proxy) bool { return !p.Down(f.maxFails) }) {
			return true
		}
	}
	return false
}

// texts returns the strings of a slice, or nil.
func texts(v reflect.Value) []string {
	if !v.IsValid() || v.Kind() != reflect.Slice {
		return nil
	}
	var all []string
	for i := range v.Len() {
		all = append(all, v.Index(i).String())
	}
	return all
}

// field returns the value of an exported field, or nil.
func field(v reflect.Value, name string) any {
	f := v.FieldByName(name)
	if !f.IsValid() || !f.CanInterface() {
		return nil
	}
	return f.Interface()
}

// integer returns the value of a whole number, or 0.
func integer(v reflect.Value, name string) int64 {
	f := v.FieldByName(name)
	switch {
	case !f.IsValid():
		return 0
	case f.CanInt():
		return f.Int()
	case f.CanUint():
		return int64(f.Uint())
	}
	return 0
}
