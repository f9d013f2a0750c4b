package source

import (
	"context"
	"errors"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/linesort"
)

// collection is one reading of a source that ends: all records first, in any
// order, then the lookups that they make, in order of time. Records of one lookup
// may stand anywhere in a file, as where that of one node follows that of another.
type collection struct {
	joining Joining
	request Request
	since   time.Time
	sorter  *linesort.Sorter // of lines compressed with S2
	seen    Read
	packed  []byte
}

// sortMemory holds some ten megabytes of records, compressed: what is not more
// than that needs no temporary file.
const sortMemory = 4 << 20

// around is how much earlier than a lookup its records may begin, by the clocks
// of two nodes.
const around = time.Minute

func newCollection(j Joining, r Request) *collection {
	c := &collection{joining: j, request: r, sorter: linesort.New(min(sortMemory, j.bound()))}
	if r.Since > 0 {
		c.since = j.Now().Add(-r.Since)
	}
	return c
}

// record takes one record and a copy of its line.
func (c *collection) record(rec trace.Record, line []byte) error {
	if !c.request.wants(rec) {
		c.seen.Others++
		return nil
	}
	at := time.Unix(0, beginOf(rec, partsOf(nil, rec)))
	if !c.since.IsZero() && rec.Head().Time.Before(c.since.Add(-around)) {
		return nil
	}
	c.packed = s2.Encode(c.packed[:cap(c.packed)], line)
	return c.sorter.Add(linesort.Key{Major: at.UnixNano()}, c.packed)
}

// wants is false of traces that a reader need not look at. An exchange or a server's record is
// wanted whatever its name: an upstream may have been asked for another one, and what is wrong
// with a lookup may show in others.
func (r *Request) wants(rec trace.Record) bool {
	t, ok := rec.(*trace.Trace)
	return !ok || r.Names == nil || t.QName == "" || r.Names(t.QName)
}

func nameOf(rec trace.Record) string {
	switch r := rec.(type) {
	case *trace.Exchange:
		return r.QName
	case *trace.Query:
		return r.QName
	case *trace.Refresh:
		return r.QName
	case *trace.Trace:
		return r.QName
	}
	return ""
}

// lookups calls each with what the records make, and returns what was read.
func (c *collection) lookups(ctx context.Context, each func(Lookup) error) (Read, error) {
	defer c.sorter.Close()
	j := newJoiner(c.joining, c.pass(each))
	var line []byte
	err := c.sorter.Each(func(_ linesort.Key, packed []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		// It was decoded once before: only what is wrong with the machine can
		// make it fail now.
		var err error
		if line, err = s2.Decode(line[:cap(line)], packed); err != nil {
			return err
		}
		rec, err := trace.Decode(line)
		if err != nil {
			return err
		}
		return j.add(rec, line)
	})
	if err == nil {
		err = j.flush()
	}
	return c.seen, unlessStop(err)
}

// pass counts lookups and leaves out those before the time asked for.
func (c *collection) pass(each func(Lookup) error) func(*trace.Trace, []byte) error {
	return func(t *trace.Trace, line []byte) error {
		if t.Time.Before(c.since) {
			return nil
		}
		c.seen.Traces++
		return each(Lookup{Trace: t, Line: line})
	}
}

// unlessStop takes the callback's wish to stop for no error.
func unlessStop(err error) error {
	if errors.Is(err, Stop) {
		return nil
	}
	return err
}
