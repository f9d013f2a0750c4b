package filter

import (
	"net/netip"
	"reflect"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// samples returns a record of each kind with every field set and every list
// filled.
func samples() []trace.Record {
	var records []trace.Record
	for _, t := range kinds {
		v := reflect.New(t)
		fill(v.Elem(), 0)
		if r, ok := v.Interface().(trace.Record); ok {
			records = append(records, r)
		}
	}
	return records
}

func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
		return
	case trace.Path:
		v.Set(reflect.ValueOf(trace.PathOf(samplePlace())))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.IPv6Loopback()))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(netip.IPv6Loopback(), 53)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Slice:
		if depth > 4 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Int, reflect.Int16, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	}
}

// samplePlace is a sighting with every field set.
func samplePlace() trace.Sighting {
	end := netip.AddrPortFrom(netip.IPv6Loopback(), 53)
	return trace.Sighting{
		Device: trace.Device{Node: "x", NetNS: 1, NetNSName: "x", IfIndex: 1, IfName: "x"}, Offset: 1,
		Message: trace.MessageQuery, Direction: trace.DirectionTX, Src: end, Dst: end,
		Tunnel: &trace.Tunnel{Kind: "x", Src: end, Dst: end, VNI: 1}, VLAN: 1,
	}
}
