// Package source is where explain, watch and top get lookups from: the local
// API, a file, standard input, or Loki, through one code path.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// Stop is what a callback returns to end the reading without an error.
var Stop = errors.New("stop reading")

// Lookup is one trace and the JSON line that holds it, unchanged where it was
// read as one. The line is valid only until the callback returns; the trace is
// the callback's own.
type Lookup struct {
	Trace *trace.Trace
	Line  []byte
}

// Request says which lookups are wanted.
type Request struct {
	Since  time.Duration           // how far back from now; 0: everything, with Follow nothing
	Follow bool                    // go on with those to come, where a source can
	Names  func(qname string) bool // false: a source may leave traces of that name out; nil: it may not
	Text   string                  // what all of Names have in common, as records show it; empty: nothing
	ID     trace.TraceID           // zero: any; else a source may leave out other names than that lookup's
}

// Read is what a source went through.
type Read struct {
	Traces int // passed on
	Others int // traces left out for their names
	// Reach says how far back the source goes, where it does not hold all that there was;
	// empty: it does.
	Reach string
}

// Source gives lookups.
type Source interface {
	// Each calls each for every lookup: the API newest first, unless it follows;
	// all others in order of time, roughly. It returns what it read, and nil at the end and after [Stop], each's error, or
	// its own, which says what would help.
	Each(ctx context.Context, r Request, each func(Lookup) error) (Read, error)
	// String names the source for people.
	String() string
}

// Assembler joins records into traces: what package assemble does.
type Assembler interface {
	Add(r trace.Record)
	Advance(now time.Time) []*trace.Trace
	Flush() []*trace.Trace
}

// Joining is how a source that gets single records makes lookups of them.
type Joining struct {
	Assemble func() Assembler
	Diagnose func(*trace.Trace) []trace.Finding
	Now      func() time.Time

	memory int // bytes of lines that are sorted, and that wait, at once; 0: defaultMemory
}

// defaultMemory holds some thousand lookups.
const defaultMemory = 16 << 20

func (j *Joining) bound() int {
	if j.memory == 0 {
		return defaultMemory
	}
	return j.memory
}

// badLines reports lines that are no records: the first few each, the others
// by number.
type badLines struct {
	w      io.Writer
	source string
	count  int
}

// maxBadLines keeps a file full of other lines, such as CoreDNS's own log,
// from burying what was found in it.
const maxBadLines = 10

func (c *badLines) add(err error) {
	c.count++
	if c.count <= maxBadLines {
		c.printf("%v; skipped", err)
	}
}

// end says how many lines were skipped.
func (c *badLines) end() {
	switch {
	case c.count > maxBadLines:
		c.printf("%d lines were no records and were skipped; the first %d are named above", c.count, maxBadLines)
	case c.count > 1:
		c.printf("%d lines were no records and were skipped", c.count)
	}
}

func (c *badLines) printf(format string, args ...any) {
	// Standard error is the last resort: nothing can be done when it fails.
	_, _ = fmt.Fprintf(c.w, "dnstrace: %s\n", oneline.Message(c.source+": "+fmt.Sprintf(format, args...)))
}
