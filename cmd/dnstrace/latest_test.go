package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// numbered is the lookup that began in second n, of a call if that has a name.
func numbered(n int, call string) source.Lookup {
	t := &trace.Trace{
		Header: trace.Header{V: trace.Version, Record: trace.KindTrace, Time: start.Add(time.Duration(n) * time.Second), TraceID: trace.TraceID{0: 1, 15: byte(n)}, Flow: trace.Flow{1}},
		QName:  fmt.Sprint(n), Resolution: call,
	}
	return source.Lookup{Trace: t, Line: t.AppendJSON(nil)}
}

func show(t *testing.T, groups [][]kept) string {
	t.Helper()
	var all []string
	for _, g := range groups {
		var names []string
		for i := range g {
			line, err := g[i].line()
			if err != nil {
				t.Fatal(err)
			}
			rec, err := trace.Decode(line)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, rec.(*trace.Trace).QName)
		}
		all = append(all, strings.Join(names, "+"))
	}
	return strings.Join(all, " ")
}

func TestLatest(t *testing.T) {
	for _, tc := range []struct {
		name    string
		k       latest
		matches string // of lookups 0, 1, 2, …: + if one matches, letters name its call
		want    string
		left    int
	}{
		{"the latest", latest{limit: 1}, "+ + +", "2", 2},
		{"two", latest{limit: 2}, "+ - +", "2 0", 0},
		{"all", latest{}, "+ + -", "1 0", 0},
		{"a call", latest{limit: 1}, "+ +a +a", "2+1", 1},
		{"others of the call, before and after", latest{limit: 1}, "-a -b +a -a", "3+2+0", 0},
		{"a call whose first lookup did not know", latest{limit: 1}, "- +  -" + (trace.TraceID{0: 1, 15: 1}).String(), "2+1", 0},
		{"calls and lookups", latest{limit: 2}, "+a + -a +b +b", "4+3 2+0", 1},
		{"alone", latest{limit: 1, alone: true}, "-a +a -a", "1", 0},
	} {
		for n, word := range strings.Fields(tc.matches) {
			if l := numbered(n, word[1:]); word[0] == '+' {
				tc.k.add(l)
			} else {
				tc.k.addOther(l)
			}
		}
		if got := show(t, tc.k.groups()); got != tc.want || tc.k.left() != tc.left {
			t.Errorf("%s: got %q and %d more, want %q and %d", tc.name, got, tc.k.left(), tc.want, tc.left)
		}
	}
}

// However many match, few are kept.
func TestLatestIsBounded(t *testing.T) {
	k := latest{limit: 3}
	for n := range 10000 {
		k.add(numbered(n, fmt.Sprint("call", n/2)))
		k.addOther(numbered(n, fmt.Sprint("other", n/2)))
		if len(k.kept) > 2*3+2*spareLookups || len(k.near) > nearLookups || len(k.calls) > len(k.kept) {
			t.Fatalf("%d lookups, %d near, %d calls", len(k.kept), len(k.near), len(k.calls))
		}
	}
	if got, want := show(t, k.groups()), "9999+9998 9997+9996 9995+9994"; got != want || k.left() != 9994 {
		t.Errorf("got %q and %d more, want %q", got, k.left(), want)
	}
}
