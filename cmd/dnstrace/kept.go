package main

import (
	"bytes"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// maxUnmatched are kept of those that do not match: they may be of a call that does.
const maxUnmatched = 128

// search is what explain looks for among lookups, in the order in which a source
// gives them.
type search interface {
	// add takes a lookup that matches, addOther one that may be of the call of one
	// that does (`resolution`).
	add(l source.Lookup) error
	addOther(l source.Lookup) error
	// each calls use with what was found, the latest first: the lookups of a call
	// together, each other lookup alone. It is called once.
	each(use func(group []kept) error) error
	// found returns how many lookups match; left, after each, how many of those were
	// not used.
	found() int
	left() int
	close()
}

// newSearch looks for the latest of some number, 0 for all. With alone, a lookup
// stands for itself, whatever call it is of.
func newSearch(limit int, alone bool) search {
	if limit == 0 || limit > fewLookups {
		return newSorted(limit, alone)
	}
	return &latest{limit: limit, alone: alone}
}

// kept is a lookup as its line, compressed (S2): decoded it takes some twenty times as much.
type kept struct {
	packed  []byte
	time    time.Time
	call    string // that it is shown with
	matches bool
}

func pack(scratch *[]byte, l source.Lookup, call string, matches bool) kept {
	*scratch = s2.Encode((*scratch)[:cap(*scratch)], l.Line)
	return kept{bytes.Clone(*scratch), l.Trace.Time, call, matches}
}

// callOf names the call that a lookup is shown with. The first lookup of a call may
// have been passed on before there was another: its trace id is the call.
func callOf(l source.Lookup) string {
	if l.Trace.Resolution == "" {
		return l.Trace.TraceID.String()
	}
	return l.Trace.Resolution
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
