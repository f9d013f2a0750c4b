package main

import (
	"bytes"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// Bounds of what is kept while lookups are searched. One takes some 2 KB.
const (
	spareLookups = 64  // beyond the limit, before those too old are let go
	nearLookups  = 128 // that do not match, but may be of a call that does
)

// latest keeps the latest lookups that match, and the others of their calls
// (`resolution`).
type latest struct {
	limit   int  // calls, and lookups of no call; 0: all
	alone   bool // a lookup stands for itself, whatever call it is of
	kept    []kept
	near    []kept          // the last that do not match
	calls   map[string]bool // of those kept
	matched int
	scratch []byte
}

// kept is a lookup as its line, compressed (S2): with --all there may be as many as
// the source has, and decoded they take some twenty times as much.
type kept struct {
	packed  []byte
	time    time.Time
	call    string // that it is shown with
	matches bool
}

// call names the call that a lookup is shown with, if it is. The first lookup of a
// call may have been passed on before there was another: its trace id is the call.
func (k *latest) call(l source.Lookup) string {
	switch {
	case k.alone:
		return ""
	case l.Trace.Resolution == "":
		return l.Trace.TraceID.String()
	}
	return l.Trace.Resolution
}

func (k *latest) keep(l source.Lookup, call string, matches bool) {
	k.kept = append(k.kept, k.pack(l, call, matches))
}

func (k *latest) pack(l source.Lookup, call string, matches bool) kept {
	k.scratch = s2.Encode(k.scratch[:cap(k.scratch)], l.Line)
	return kept{bytes.Clone(k.scratch), l.Trace.Time, call, matches}
}

// line returns the line of a lookup as it was read.
func (l *kept) line() ([]byte, error) { return s2.Decode(nil, l.packed) }

// tracesOf returns the traces of lookups, decoded anew.
func tracesOf(group []kept) ([]*trace.Trace, error) {
	var traces []*trace.Trace
	for i := range group {
		line, err := group[i].line()
		if err != nil {
			return nil, err
		}
		rec, err := trace.Decode(line)
		if err != nil {
			return nil, err
		}
		if t, ok := rec.(*trace.Trace); ok {
			traces = append(traces, t)
		}
	}
	return traces, nil
}

// add takes a lookup that matches.
func (k *latest) add(l source.Lookup) {
	k.matched++
	call := k.call(l)
	k.keep(l, call, true)
	if call != "" && !k.calls[call] {
		if k.calls == nil {
			k.calls = map[string]bool{}
		}
		k.calls[call] = true
		for _, n := range k.near {
			if n.call == call {
				k.kept = append(k.kept, n)
			}
		}
	}
	if k.limit > 0 && len(k.kept) > 2*k.limit+spareLookups {
		k.trim()
	}
}

// addOther takes a lookup that does not match.
func (k *latest) addOther(l source.Lookup) {
	call := k.call(l)
	switch {
	case k.calls[call]:
		k.keep(l, call, false)
	case call == "" || l.Trace.Resolution == "":
	default:
		if len(k.near) == nearLookups {
			k.near = slices.Delete(k.near, 0, nearLookups/2)
		}
		k.near = append(k.near, k.pack(l, call, false))
	}
}

// groups returns what is kept, the latest first: the lookups of a call
// together, each other lookup alone.
func (k *latest) groups() [][]kept {
	k.trim()
	var groups [][]kept
	at := map[string]int{}
	for _, l := range k.kept {
		if i, ok := at[l.call]; ok && l.call != "" {
			groups[i] = append(groups[i], l)
			continue
		}
		at[l.call] = len(groups)
		groups = append(groups, []kept{l})
	}
	return groups
}

// left returns how many lookups match and are not kept.
func (k *latest) left() int {
	n := k.matched
	for _, l := range k.kept {
		if l.matches {
			n--
		}
	}
	return n
}

// trim sorts the lookups, the latest first, and lets go of those beyond the
// limit.
func (k *latest) trim() {
	slices.SortStableFunc(k.kept, func(a, b kept) int { return b.time.Compare(a.time) })
	if k.limit == 0 {
		return
	}
	calls := map[string]bool{}
	n := 0
	k.kept = slices.DeleteFunc(k.kept, func(l kept) bool {
		call := l.call
		switch {
		case call != "" && calls[call]:
			return false
		case n == k.limit:
			return true
		}
		n++
		if call != "" {
			calls[call] = true
		}
		return false
	})
	k.calls = calls
}
