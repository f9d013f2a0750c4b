package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// idleTick is how often a followed source advances its time without input.
const idleTick = 500 * time.Millisecond

// File reads records from a file, or from standard input. The order of the lines
// does not matter, and their number costs no memory; but standard input is, when
// it is followed, read as it comes, and its records are then joined with those
// close to them in time.
type File struct {
	Joining
	Path   string // "-": Stdin
	Stdin  io.Reader
	Stderr io.Writer // for lines that are no records
}

// String implements Source.
func (f File) String() string {
	if f.Path == "-" {
		return "standard input"
	}
	return f.Path
}

// Each implements Source. Follow makes a difference only to standard input, which
// is followed for as long as it is open.
func (f File) Each(ctx context.Context, r Request, each func(Lookup) error) (Read, error) {
	c := newCollection(f.Joining, r)
	if r.Follow && f.Path == "-" {
		return f.follow(ctx, c, each)
	}
	done := make(chan error, 1)
	go func() { done <- f.read(ctx, c.record) }()
	select {
	case err := <-done:
		if err != nil {
			c.sorter.Close()
			return c.seen, err
		}
		return c.lookups(ctx, each)
	case <-ctx.Done():
		// Neither opening a pipe nor reading can be canceled: the goroutine stays, with what it
		// writes to.
		return Read{}, ctx.Err()
	}
}

// open returns what is read.
func (f File) open() (io.ReadCloser, error) {
	if f.Path == "-" {
		return io.NopCloser(f.Stdin), nil
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	return file, nil
}

// read calls use with every record; it reports and skips other lines.
func (f File) read(ctx context.Context, use func(trace.Record, []byte) error) error {
	in, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	bad := badLines{w: f.Stderr, source: f.String()}
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
			return fmt.Errorf("reading %s: %w", f.String(), err)
		}
		if err := use(rec, line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// arrived is a record on its way from the goroutine that reads.
type arrived struct {
	record trace.Record
	line   []byte
}

// follow passes lookups on while records come.
func (f File) follow(ctx context.Context, c *collection, each func(Lookup) error) (Read, error) {
	// A read from a pipe cannot be taken back: at a stop, it is left behind.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records, done := make(chan arrived), make(chan error, 1)
	go func() {
		done <- f.read(ctx, func(rec trace.Record, line []byte) error {
			select {
			case records <- arrived{rec, bytes.Clone(line)}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	j := newJoiner(f.Joining, c.pass(each))
	j.immediate = true
	tick := time.NewTicker(idleTick)
	defer tick.Stop()
	for {
		var err error
		select {
		case r := <-records:
			if !c.request.wants(r.record) {
				c.seen.Others++
				continue
			}
			err = j.add(r.record, r.line)
			tick.Reset(idleTick)
		case <-tick.C:
			err = j.idle(idleTick)
		case err := <-done:
			if err == nil {
				err = j.flush()
			}
			return c.seen, unlessStop(err)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return c.seen, unlessStop(err)
		}
	}
}
