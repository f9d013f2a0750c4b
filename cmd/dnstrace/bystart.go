package main

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/linesort"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// byStart sorts lookups, which come as they end, by when they began, in constant memory. Of
// one that was reported again the last report is shown.
type byStart struct {
	sorter *linesort.Sorter
}

func newByStart() *byStart { return &byStart{linesort.New(sortedMemory)} }

func (b *byStart) add(l source.Lookup) error {
	return b.sorter.Add(linesort.Key{Major: l.Trace.Time.UnixNano()}, l.Line)
}

func (b *byStart) each(show func(source.Lookup) error) error {
	var last source.Lookup
	flush := func() error {
		if last.Trace == nil {
			return nil
		}
		return show(last)
	}
	err := b.sorter.Each(func(_ linesort.Key, line []byte) error {
		r, err := trace.Decode(line)
		if err != nil {
			return err
		}
		t := r.(*trace.Trace) // a source has nothing else
		if again := last.Trace != nil && t.Replaces && t.TraceID == last.Trace.TraceID && t.Time.Equal(last.Trace.Time); !again {
			if err := flush(); err != nil {
				return err
			}
		}
		last = source.Lookup{Trace: t, Line: append(last.Line[:0], line...)}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (b *byStart) close() { b.sorter.Close() }
