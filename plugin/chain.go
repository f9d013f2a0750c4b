package dnstrace

import (
	"reflect"
	"time"

	"github.com/coredns/coredns/plugin"
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
	staleTTL    uint32        // of serve_stale; 0 is also its default
	readTimeout time.Duration // of forward; the shortest, where there are several
	failover    bool          // forward tries another upstream for some rcodes
	maxAttempts int           // of forward; the least, 0 is no limit
}

// readChain reads the chain that starts with next.
func readChain(next plugin.Handler) chain {
	c := chain{readTimeout: defaultReadTimeout}
	forwards := 0
	for next != nil {
		v := reflect.Indirect(reflect.ValueOf(next))
		if v.Kind() != reflect.Struct {
			break
		}
		switch next.Name() {
		case cachePlugin:
			if zones, ok := field(v, "Zones").([]string); ok {
				c.cacheZones = zones
			}
			c.staleTTL = uint32(integer(v, "staleTTL") / int64(time.Second))
		case forwardPlugin:
			c.addForward(v, forwards == 0)
			forwards++
		}
		next, _ = field(v, "Next").(plugin.Handler)
	}
	return c
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
