package main

import (
	"slices"

	"github.com/dnstrace/dnstrace/tracer/source"
)

// Bounds of what is kept in memory. A lookup takes some 2 KB.
const (
	fewLookups = 500 // or calls; more are sorted outside of memory
	trimSlack  = 64  // beyond the limit, before the oldest are dropped
)

// latest finds the few latest lookups.
type latest struct {
	limit     int // calls, and lookups of no call
	alone     bool
	kept      []kept
	unmatched []kept          // the last that do not match
	calls     map[string]bool // of those kept
	matched   int
	scratch   []byte
}

// call names the call that a lookup is shown with, empty for none.
func (k *latest) call(l source.Lookup) string {
	if k.alone {
		return ""
	}
	return callOf(l)
}

func (k *latest) add(l source.Lookup) error {
	k.matched++
	call := k.call(l)
	k.kept = append(k.kept, pack(&k.scratch, l, call, true))
	if call != "" && !k.calls[call] {
		if k.calls == nil {
			k.calls = map[string]bool{}
		}
		k.calls[call] = true
		for _, n := range k.unmatched {
			if n.call == call {
				k.kept = append(k.kept, n)
			}
		}
	}
	if len(k.kept) > 2*k.limit+trimSlack {
		k.trim()
	}
	return nil
}

func (k *latest) addOther(l source.Lookup) error {
	call := k.call(l)
	switch {
	case k.calls[call]:
		k.kept = append(k.kept, pack(&k.scratch, l, call, false))
	case call == "" || l.Trace.Resolution == "":
	default:
		if len(k.unmatched) == maxUnmatched {
			k.unmatched = slices.Delete(k.unmatched, 0, maxUnmatched/2)
		}
		k.unmatched = append(k.unmatched, pack(&k.scratch, l, call, false))
	}
	return nil
}

func (k *latest) each(use func(group []kept) error) error {
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
	for _, group := range groups {
		if err := use(group); err != nil {
			return err
		}
	}
	return nil
}

func (k *latest) found() int { return k.matched }

func (k *latest) left() int {
	n := k.matched
	for _, l := range k.kept {
		if l.matches {
			n--
		}
	}
	return n
}

func (k *latest) close() {}

// trim sorts the lookups, the latest first, and drops those beyond the
// limit.
func (k *latest) trim() {
	slices.SortStableFunc(k.kept, func(a, b kept) int { return b.time.Compare(a.time) })
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
