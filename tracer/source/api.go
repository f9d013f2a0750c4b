package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/history"
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
	bad := badLines{w: a.Stderr, source: a.Path}
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
		bad.printf("this reader is too slow: %s not shown", english.Plural(int(n), "lookup", ""))
	}
	reach := func(back history.Reach) {
		now := time.Now()
		read.Reach = describeReach(back, now)
		// With Follow the request is for what comes.
		if r.Since > 0 && !r.Follow && (later(back.Ordinary, back.Notable).After(now.Add(-r.Since)) || len(back.Clients) > 0) {
			bad.printf("%s", read.Reach)
		}
	}
	err := api.NewClient(a.Path).Traces(ctx, api.Query{Since: r.Since, Follow: r.Follow}, reach, line, lost)
	bad.end()
	switch {
	case errors.Is(err, Stop):
		return read, nil
	case errors.Is(err, api.ErrEnded):
		return read, fmt.Errorf("%w; start `dnstrace run` again", err)
	}
	return read, err
}

// describeReach says for people how far back the memory of a tracer goes.
func describeReach(back history.Reach, now time.Time) string {
	words := "it holds the lookups of the last " + ago(back.Ordinary, now)
	if !back.Notable.Equal(back.Ordinary) {
		words += ", of those that failed, were slow or have a finding the last " + ago(back.Notable, now)
	}
	var less []string
	for _, c := range back.Clients {
		less = append(less, c.Client+" the last "+ago(later(c.Ordinary, c.Notable), now))
	}
	slices.Sort(less)
	if len(less) > 0 {
		words += "; of clients that ask more than others, less: " + strings.Join(less, ", ")
	}
	return words
}

func ago(t, now time.Time) string { return max(now.Sub(t), 0).Round(time.Second).String() }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
