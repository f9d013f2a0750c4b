package main

import (
	"bytes"
	"slices"

	"github.com/dnstrace/dnstrace/tracer/source"
)

// Bounds of what is kept while lookups are searched. One takes some 20 KB.
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
	near    []source.Lookup // the last that do not match
	calls   map[string]bool // of those kept
	matched int
}

type kept struct {
	source.Lookup
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

// add takes a lookup that matches.
func (k *latest) add(l source.Lookup) {
	k.matched++
	l.Line = bytes.Clone(l.Line)
	k.kept = append(k.kept, kept{l, true})
	if call := k.call(l); call != "" && !k.calls[call] {
		if k.calls == nil {
			k.calls = map[string]bool{}
		}
		k.calls[call] = true
		for _, n := range k.near {
			if n.Trace.Resolution == call {
				k.kept = append(k.kept, kept{n, false})
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
	if call == "" || l.Trace.Resolution == "" && !k.calls[call] {
		return
	}
	l.Line = bytes.Clone(l.Line)
	if k.calls[call] {
		k.kept = append(k.kept, kept{l, false})
		return
	}
	if len(k.near) == nearLookups {
		k.near = slices.Delete(k.near, 0, nearLookups/2)
	}
	k.near = append(k.near, l)
}

// groups returns what is kept, the latest first: the lookups of a call
// together, each other lookup alone.
func (k *latest) groups() [][]source.Lookup {
	k.trim()
	var groups [][]source.Lookup
	at := map[string]int{}
	for _, l := range k.kept {
		call := k.call(l.Lookup)
		if i, ok := at[call]; ok && call != "" {
			groups[i] = append(groups[i], l.Lookup)
			continue
		}
		at[call] = len(groups)
		groups = append(groups, []source.Lookup{l.Lookup})
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
	slices.SortStableFunc(k.kept, func(a, b kept) int { return b.Trace.Time.Compare(a.Trace.Time) })
	if k.limit == 0 {
		return
	}
	calls := map[string]bool{}
	n := 0
	k.kept = slices.DeleteFunc(k.kept, func(l kept) bool {
		call := k.call(l.Lookup)
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
