package main

import (
	"errors"
	"fmt"
	"slices"
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

// show names what a search found: the lookups of a call with + between them.
func show(t *testing.T, s search) string {
	t.Helper()
	var all []string
	err := s.each(func(g []kept) error {
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
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// feed gives a search the lookups 0, 1, 2, …: + if one matches, letters name its call.
func feed(t *testing.T, s search, matches string) {
	t.Helper()
	for n, word := range strings.Fields(matches) {
		add := s.addOther
		if word[0] == '+' {
			add = s.add
		}
		if err := add(numbered(n, word[1:])); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSearch(t *testing.T) {
	for _, tc := range []struct {
		name    string
		limit   int // 0: all
		alone   bool
		matches string
		want    string
		left    int
	}{
		{"the latest", 1, false, "+ + +", "2", 2},
		{"two", 2, false, "+ - +", "2 0", 0},
		{"all", 0, false, "+ + -", "1 0", 0},
		{"a call", 1, false, "+ +a +a", "2+1", 1},
		{"others of the call, before and after", 1, false, "-a -b +a -a", "3+2+0", 0},
		{"a call whose first lookup did not know", 1, false, "- +  -" + (trace.TraceID{0: 1, 15: 1}).String(), "2+1", 0},
		{"calls and lookups", 2, false, "+a + -a +b +b", "4+3 2+0", 1},
		{"a call stands where its latest lookup is", 0, false, "+a + +b -a +c", "4 3+0 2 1", 0},
		{"alone", 1, true, "-a +a -a", "1", 0},
		{"all alone", 0, true, "+a +a -a +b", "3 1 0", 0},
	} {
		searches := map[string]search{"sorted": newSorted(tc.limit, tc.alone)}
		if tc.limit > 0 {
			searches["latest"] = &latest{limit: tc.limit, alone: tc.alone}
		}
		for kind, s := range searches {
			feed(t, s, tc.matches)
			if got := show(t, s); got != tc.want || s.left() != tc.left {
				t.Errorf("%s, %s: got %q and %d more, want %q and %d", tc.name, kind, got, s.left(), tc.want, tc.left)
			}
			s.close()
		}
	}
}

// However many match, few are kept.
func TestLatestIsBounded(t *testing.T) {
	k := latest{limit: 3}
	for n := range 10000 {
		if err := errors.Join(k.add(numbered(n, fmt.Sprint("call", n/2))), k.addOther(numbered(n, fmt.Sprint("other", n/2)))); err != nil {
			t.Fatal(err)
		}
		if len(k.kept) > 2*3+2*trimSlack || len(k.unmatched) > maxUnmatched || len(k.calls) > len(k.kept) {
			t.Fatalf("%d lookups, %d unmatched, %d calls", len(k.kept), len(k.unmatched), len(k.calls))
		}
	}
	if got, want := show(t, &k), "9999+9998 9997+9996 9995+9994"; got != want || k.left() != 9994 {
		t.Errorf("got %q and %d more, want %q", got, k.left(), want)
	}
}

// So it is with all that are sorted; a call without an end is shown in parts.
func TestSortedIsBounded(t *testing.T) {
	s := newSorted(2, false)
	defer s.close()
	for n := range 5000 {
		call := "endless"
		if n < 4000 {
			call = fmt.Sprint("call", n)
		}
		if err := errors.Join(s.add(numbered(n, call)), s.addOther(numbered(n, fmt.Sprint("other", n)))); err != nil {
			t.Fatal(err)
		}
		if len(s.unmatched) > maxUnmatched || len(s.calls) > recentCalls || len(s.isCall) > recentCalls {
			t.Fatalf("%d unmatched, %d calls, %d known", len(s.unmatched), len(s.calls), len(s.isCall))
		}
	}
	sizes := []int{}
	if err := s.each(func(group []kept) error {
		sizes = append(sizes, len(group))
		return nil
	}); err != nil || !slices.Equal(sizes, []int{longestCall, longestCall}) || s.left() != 5000-2*longestCall {
		t.Errorf("%v, %d left, %v", sizes, s.left(), err)
	}
}
