package filter

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// environment returns the fields of a record that an expression names. Building only those
// makes a filter cheap. Once the budget is spent, further values are left out.
func environment(r trace.Record, uses map[string]bool, b *budget) map[string]any {
	env := make(map[string]any, len(uses))
	addFields(env, reflect.ValueOf(r).Elem(), func(name string) bool { return uses[name] }, b)
	for name := range uses {
		if _, ok := env[name]; ok {
			continue
		}
		if s := schema.fields[name]; s != nil && s.elem != nil {
			env[name] = []any{}
		}
	}
	return env
}

func addFields(env map[string]any, v reflect.Value, want func(string) bool, b *budget) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			addFields(env, v.Field(i), want, b)
			continue
		}
		if name := jsonName(f); want(name) {
			env[name] = value(v.Field(i), b)
		}
	}
	switch x := v.Interface().(type) {
	case trace.Endpoint:
		unset(env, "pid", x.PID == 0)
		unset(env, "tid", x.TID == 0)
	case trace.Exchange:
		unset(env, "path_omitted", x.PathOmitted == 0)
	}
}

// unset makes a field nil, if the filter asks for it and its 0 is no value.
func unset(env map[string]any, name string, nothing bool) {
	if _, asked := env[name]; asked && nothing {
		env[name] = nil
	}
}

// value returns a field as its JSON shows it: what is unset is nil.
func value(v reflect.Value, b *budget) any {
	if b.spend(1) != nil {
		return nil
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return x
	case trace.Seconds:
		return x.Duration().Seconds()
	case trace.Path:
		return pathValue(&x, b)
	case trace.Milestone:
		return milestoneValue(x)
	case netip.Addr:
		return orNil(x.WithZone("").String(), x.IsValid())
	case netip.AddrPort:
		return orNil(x.String(), x.IsValid())
	case trace.TraceID, trace.SpanID, trace.Flow:
		return fmt.Sprint(x)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return value(v.Elem(), b)
	case reflect.Slice:
		if b.spend(v.Len()) != nil {
			return nil
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = value(v.Index(i), b)
		}
		return list
	case reflect.Struct:
		env := make(map[string]any, v.NumField())
		addFields(env, v, func(string) bool { return true }, b)
		return env
	case reflect.String:
		_ = b.spend(v.Len() / textPerStep) // the request for the next value fails
		return orNil(v.String(), v.Len() > 0)
	case reflect.Bool:
		return v.Bool()
	case reflect.Int:
		return int(v.Int())
	case reflect.Float64:
		return v.Float()
	}
	return int(v.Uint())
}

func orNil(s string, known bool) any {
	if !known {
		return nil
	}
	return s
}
