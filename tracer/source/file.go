package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// File reads records from a file, or from standard input. Traces in it are
// passed on as they are read; what is in no trace is assembled at the end, so
// that the order of the lines does not matter.
type File struct {
	Path     string // "-": Stdin
	Stdin    io.Reader
	Stderr   io.Writer // for lines that are no records
	Assemble func() Assembler
	Diagnose func(*trace.Trace) []trace.Finding
	Now      func() time.Time
}

// String implements Source.
func (f File) String() string {
	if f.Path == "-" {
		return "standard input"
	}
	return f.Path
}

// Each implements Source. Follow makes no difference: standard input is followed
// for as long as it is open.
func (f File) Each(ctx context.Context, r Request, each func(Lookup) error) (Read, error) {
	in := f.Stdin
	if f.Path != "-" {
		file, err := os.Open(f.Path)
		if err != nil {
			return Read{}, fmt.Errorf("--from: %w", err)
		}
		defer file.Close()
		in = file
	}
	p := &pass{File: f, request: r, each: each, loose: map[key]loose{}, inTrace: map[key]struct{}{}}
	if r.Since > 0 {
		p.since = f.Now().Add(-r.Since)
	}
	err := p.read(ctx, in)
	if err == nil {
		err = p.assemble()
	}
	if errors.Is(err, Stop) {
		err = nil
	}
	return p.seen, err
}

// pass is one reading of a file.
type pass struct {
	File
	request Request
	each    func(Lookup) error
	since   time.Time
	loose   map[key]loose    // records in no trace so far
	inTrace map[key]struct{} // records in a trace
	lines   int
	seen    Read
}

type loose struct {
	record trace.Record
	line   int
}

// key names a record: a flow in one place at one time.
type key struct {
	kind string
	flow trace.Flow
	time int64
}

func keyOf(r trace.Record) key {
	h := r.Head()
	return key{kind: r.Kind(), flow: h.Flow, time: h.Time.UnixNano()}
}

func (p *pass) read(ctx context.Context, in io.Reader) error {
	bad := complaints{w: p.Stderr, source: p.String()}
	defer bad.end()
	reader := trace.NewReader(in)
	for ctx.Err() == nil {
		rec, line, err := reader.Read()
		var broken *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &broken):
			bad.add(err)
			continue
		case err != nil:
			return fmt.Errorf("reading %s: %w", p.String(), err)
		}
		if err := p.record(rec, line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (p *pass) record(rec trace.Record, line []byte) error {
	t, ok := rec.(*trace.Trace)
	if !ok {
		p.keep(rec)
		return nil
	}
	p.claim(t.Exchange, t.Query)
	p.claimUpstreams(t.Upstreams)
	return p.pass(t, line)
}

// keep puts a record aside until it is clear that no trace has it. Of a large
// file, only what is wanted takes memory.
func (p *pass) keep(rec trace.Record) {
	k := keyOf(rec)
	if _, ok := p.inTrace[k]; ok {
		return
	}
	if p.request.Names != nil && !p.request.Names(questionOf(rec)) {
		p.seen.Others++
		return
	}
	p.lines++
	p.loose[k] = loose{record: rec, line: p.lines}
}

func questionOf(rec trace.Record) string {
	switch r := rec.(type) {
	case *trace.Exchange:
		return r.QName
	case *trace.Query:
		return r.QName
	case *trace.Refresh:
		return r.QName
	}
	return ""
}

// claim notes the records that a trace is made of: they make no second one.
func (p *pass) claim(e *trace.Exchange, q *trace.Query) {
	take := func(k key) {
		p.inTrace[k] = struct{}{}
		delete(p.loose, k)
	}
	if e != nil {
		take(keyOf(e))
	}
	if q != nil {
		take(keyOf(q))
	}
}

func (p *pass) claimUpstreams(list []trace.Upstream) {
	for i := range list {
		p.claim(list[i].Exchange, list[i].Query)
		p.claimUpstreams(list[i].Upstreams)
	}
}

func (p *pass) pass(t *trace.Trace, line []byte) error {
	if t.Time.Before(p.since) {
		return nil
	}
	p.seen.Traces++
	return p.each(Lookup{Trace: t, Line: line})
}

// assemble makes traces of the loose records, in the order in which a tracer
// would have got them.
func (p *pass) assemble() error {
	records := slices.SortedFunc(maps.Values(p.loose), func(a, b loose) int {
		return cmp.Or(ended(a.record).Compare(ended(b.record)), cmp.Compare(a.line, b.line))
	})
	p.loose, p.inTrace = nil, nil
	var traces []*trace.Trace
	a := p.Assemble()
	for i := range records {
		rec := records[i].record
		records[i].record = nil
		at := ended(rec)
		a.Add(rec)
		traces = append(traces, a.Advance(at)...)
	}
	traces = append(traces, a.Flush()...)
	slices.SortStableFunc(traces, func(x, y *trace.Trace) int { return x.Time.Compare(y.Time) })
	var line []byte
	for _, t := range traces {
		t.Diagnosis = p.Diagnose(t)
		line = t.AppendJSON(line[:0])
		if err := p.pass(t, line); err != nil {
			return err
		}
	}
	return nil
}

// ended returns when a record was complete.
func ended(rec trace.Record) time.Time {
	at := rec.Head().Time
	var d *trace.Seconds
	switch r := rec.(type) {
	case *trace.Exchange:
		d = r.Duration
	case *trace.Query:
		d = r.Duration
	case *trace.Refresh:
		d = r.Duration
	}
	if d != nil {
		at = at.Add(d.Duration())
	}
	return at
}
