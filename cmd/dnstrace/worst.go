package main

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/render"
)

// choice is what of a call is shown.
type choice struct {
	target *filter.Target // nil: nothing was asked for by a word
	full   bool           // each of its lookups is drawn
}

// member is a lookup of a call.
type member struct {
	trace  *trace.Trace
	record kept
}

// members returns the lookups of a call, the one that is meant first: one whose result was
// asked for; one that matches and is wrong, or any that is wrong; one that matches. Of
// several it is the worst, then the one that has the cause, then the slowest, then the first.
func (c choice) members(group []kept) ([]member, error) {
	traces, err := tracesOf(group)
	if err != nil {
		return nil, err
	}
	all := make([]member, len(traces))
	for i, t := range traces {
		all[i] = member{t, group[i]}
	}
	cause := causeOf(traces)
	rank := func(m *member) []int {
		wrong := wrongness(m.trace)
		result := m.record.matches && c.target != nil && c.target.MatchResult(m.trace)
		return []int{one(result), one(m.record.matches && wrong > 0), one(wrong > 0), one(m.record.matches), wrong, one(hasFinding(m.trace, cause)), int(duration(m.trace))}
	}
	slices.SortStableFunc(all, func(a, b member) int {
		return cmp.Or(slices.Compare(rank(&b), rank(&a)), a.trace.Time.Compare(b.trace.Time))
	})
	return all, nil
}

// causeOf returns the code of the finding of a call that is nearest to the cause.
func causeOf(traces []*trace.Trace) string {
	var all []trace.Finding
	for _, t := range traces {
		all = append(all, t.Diagnosis...)
	}
	if len(all) == 0 {
		return ""
	}
	diagnose.Order(all)
	return all[0].Code
}

func hasFinding(t *trace.Trace, code string) bool {
	return slices.ContainsFunc(t.Diagnosis, func(f trace.Finding) bool { return f.Code == code })
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// wrongness orders what can be wrong with a lookup: no response, one that says that it
// failed, a finding; 0: nothing.
func wrongness(t *trace.Trace) int {
	switch {
	case diagnose.WentOn(t):
		return 0
	case t.Outcome == trace.OutcomeUnanswered || t.Outcome == trace.OutcomeDropped:
		return 3
	case t.RCode != "" && t.RCode != "NOERROR" && t.RCode != "NXDOMAIN":
		return 2
	case len(t.Diagnosis) > 0:
		return 1
	}
	return 0
}

func duration(t *trace.Trace) time.Duration {
	if t.Duration == nil {
		return 0
	}
	return t.Duration.Duration()
}

// draw draws a lookup, or what is to be shown of a call under one head.
func (c choice) draw(w io.Writer, group []kept, o render.Options) error {
	all, err := c.members(group)
	if err != nil || len(all) == 0 {
		return err
	}
	if len(all) == 1 {
		return render.Waterfall(w, all[0].trace, o)
	}
	traces := make([]*trace.Trace, len(all))
	for i := range all {
		traces[i] = all[i].trace
	}
	if c.full {
		return render.Resolution(w, traces, traces, o)
	}
	return render.Resolution(w, traces, traces[:1], o)
}

// records returns the lookups of a call that match: all, as they are given, or as many as
// there is room for, the one that is meant first.
func (c choice) records(group []kept, room int, all bool) ([]kept, error) {
	matching := slices.DeleteFunc(slices.Clone(group), func(k kept) bool { return !k.matches })
	if all {
		return matching, nil
	}
	members, err := c.members(matching)
	if err != nil {
		return nil, err
	}
	for i := range members {
		matching[i] = members[i].record
	}
	return matching[:min(len(matching), room)], nil
}

// writeGroup writes lookups as they were read.
func writeGroup(w io.Writer, group []kept) error {
	for i := range group {
		line, err := group[i].line()
		if err == nil {
			err = writeLine(w, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
