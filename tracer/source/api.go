package source

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
)

// API reads from the tracer on this node.
type API struct {
	Path   string    // of its unix socket
	Stderr io.Writer // for what was lost or could not be read
}

// String implements Source.
func (a API) String() string { return "the tracer at " + a.Path }

// Each implements Source.
func (a API) Each(ctx context.Context, r Request, each func(Lookup) error) (Read, error) {
	bad := complaints{w: a.Stderr, source: a.Path}
	n := 0
	var read Read
	line := func(line []byte) error {
		n++
		rec, err := trace.Decode(line)
		if err != nil {
			bad.add(&trace.LineError{Line: n, Err: err})
			return nil
		}
		t, ok := rec.(*trace.Trace)
		if !ok {
			return nil
		}
		read.Traces++
		return each(Lookup{Trace: t, Line: line})
	}
	lost := func(n uint64) {
		bad.printf("this reader is too slow: %d lookups are not shown", n)
	}
	err := api.NewClient(a.Path).Traces(ctx, api.Query{Since: r.Since, Follow: r.Follow}, line, lost)
	bad.end()
	switch {
	case errors.Is(err, Stop):
		return read, nil
	case errors.Is(err, api.ErrEnded):
		return read, fmt.Errorf("%w; start `dnstrace run` again", err)
	}
	return read, err
}
