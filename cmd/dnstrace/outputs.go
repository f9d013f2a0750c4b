package main

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/export"
	"github.com/dnstrace/dnstrace/tracer/otlp"
)

// output takes records at the end of the pipeline. None of its methods blocks but Close, and
// Write after Last, and it keeps nothing that it is given.
type output interface {
	Write(r trace.Record, line []byte)
	Flush()
	Last(patience time.Duration)
	Close() error
	Stats() (written, dropped uint64)
	Queued() uint64
	Name() string
}

// lines is an output that takes each record's line.
type lines struct{ *export.Writer }

// Write implements output.
func (l lines) Write(_ trace.Record, line []byte) { l.Writer.Write(line) }

// openOutput opens what --output names: one output, or one for each signal of OTLP.
func openOutput(spec string, stderr io.Writer) ([]output, error) {
	url, isOTLP := strings.CutPrefix(spec, otlp.Prefix)
	if !isOTLP {
		w, err := export.Open(spec, func(err error) { say(stderr, "%v", err) })
		var file *fs.PathError
		switch {
		case errors.As(err, &file):
			return nil, err
		case err != nil:
			return nil, usageError{err}
		}
		return []output{lines{w}}, nil
	}
	logs, traces, err := otlp.Open(otlp.Config{URL: url, Version: buildVersion(), Report: func(line string) {
		say(stderr, "%s", line)
	}})
	if err != nil {
		return nil, usageError{err}
	}
	var all []output
	if logs != nil {
		all = append(all, logs)
	}
	if traces != nil {
		all = append(all, traces)
	}
	return all, nil
}
