package filter

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/types"

	"github.com/dnstrace/dnstrace/trace"
)

var kinds = []reflect.Type{
	reflect.TypeFor[trace.Trace](), reflect.TypeFor[trace.Exchange](), reflect.TypeFor[trace.Query](), reflect.TypeFor[trace.Refresh](),
}

// schema holds the fields of all kinds of record.
var schema = func() *shape {
	all := &shape{fields: map[string]*shape{}}
	for _, t := range kinds {
		all.merge(shapeOf(t, nil))
	}
	return all
}()

// shape is what JSON makes of a Go type: an object with fields, a list of its
// elements, or a plain value, which has neither.
type shape struct {
	fields map[string]*shape
	elem   *shape
	open   bool // of different shape in different records
}

// shapeOf describes a type. stack holds the types around it: an upstream has
// upstreams, and three levels of them are more than any chain of servers has.
func shapeOf(t reflect.Type, stack []reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	deep := 0
	for _, s := range stack {
		if s == t {
			deep++
		}
	}
	switch {
	case deep >= 3:
		return &shape{open: true}
	case t == reflect.TypeFor[trace.Path]():
		return &shape{elem: shapeOf(reflect.TypeFor[sighting](), stack)}
	case isPlain(t):
		return &shape{}
	case t.Kind() == reflect.Slice:
		return &shape{elem: shapeOf(t.Elem(), stack)}
	}
	s := &shape{fields: map[string]*shape{}}
	stack = append(stack, t)
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			s.merge(shapeOf(f.Type, stack))
			continue
		}
		if jsonName(f) == "-" {
			continue // for the diagnosis alone
		}
		s.fields[jsonName(f)] = shapeOf(f.Type, stack)
	}
	return s
}

// merge makes s describe what other does too: `upstreams` of a query and of a
// trace have different elements, which then have the fields of both.
func (s *shape) merge(other *shape) {
	switch {
	case (s.fields == nil) != (other.fields == nil) || (s.elem == nil) != (other.elem == nil):
		*s = shape{open: true}
	case s.elem != nil:
		s.elem.merge(other.elem)
	default:
		for name, o := range other.fields {
			if mine, ok := s.fields[name]; ok {
				mine.merge(o)
			} else {
				s.fields[name] = o
			}
		}
	}
}

// types gives the checker of expr the names that exist. A plain value is left
// without a type, because typed operands make expr choose instructions that
// cannot take null.
func (s *shape) types() types.Type {
	switch {
	case s.elem != nil:
		return types.Array(s.elem.types())
	case s.fields != nil:
		return s.typesMap()
	}
	return types.Any
}

func (s *shape) typesMap() types.Map {
	m := make(types.Map, len(s.fields))
	for name, f := range s.fields {
		m[name] = f.types()
	}
	return m
}

// names lists the fields of a record, or those of the objects inside one.
func (s *shape) names(inside bool) []string {
	all := map[string]bool{}
	var collect func(*shape, bool)
	collect = func(s *shape, add bool) {
		if s.elem != nil {
			collect(s.elem, add)
		}
		for name, f := range s.fields {
			if add {
				all[name] = true
			}
			if inside {
				collect(f, true)
			}
		}
	}
	collect(s, !inside)
	return slices.Sorted(maps.Keys(all))
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// isPlain tells whether a type is one value in JSON, neither object nor list.
func isPlain(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort]():
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice
}
