package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/source"
)

// Formats of -o.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// readOptions are the flags of every command that reads lookups.
type readOptions struct {
	api, from, filter, output string
	since                     time.Duration
}

func (o *readOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.api, "api", api.DefaultPath, "unix socket of the tracer on this node")
	f.StringVar(&o.from, "from", "", "read records from this file instead, - for standard input")
	f.StringVarP(&o.filter, "filter", "f", "", "only lookups for which this expression over the record's fields is true")
	f.StringVarP(&o.output, "output", "o", outputTable, "table for people, json for the records, one a line")
	f.DurationVar(&o.since, "since", 0, "only lookups of this time before now, such as 5m")
	// The name of a flag that was just defined is no possible error.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// validate checks the flags and returns the filter, nil if there is none.
func (o *readOptions) validate(cmd *cobra.Command) (*filter.Filter, error) {
	if cmd.Flags().Changed("api") && o.from != "" {
		return nil, usageError{errors.New("--api and --from exclude each other")}
	}
	if o.output != outputTable && o.output != outputJSON {
		return nil, usageError{fmt.Errorf("-o %s: expected table or json", o.output)}
	}
	if o.since < 0 {
		return nil, usageError{errors.New("--since: expected a duration above 0, such as 5m")}
	}
	if o.filter == "" {
		return nil, nil
	}
	f, err := filter.Compile(o.filter)
	if err != nil {
		return nil, usageError{fmt.Errorf("--filter: %w", err)}
	}
	return f, nil
}

// open returns where lookups come from.
func (o *readOptions) open(cmd *cobra.Command) source.Source {
	if o.from == "" {
		return source.API{Path: o.api, Stderr: cmd.ErrOrStderr()}
	}
	return source.File{
		Path: o.from, Stdin: cmd.InOrStdin(), Stderr: cmd.ErrOrStderr(), Diagnose: diagnose.Trace, Now: time.Now,
		// The records of a file are all there: none has to make room.
		Assemble: func() source.Assembler { return assemble.New(assemble.Config{MaxPending: math.MaxInt}) },
	}
}

// each reads the lookups for which the filter is true. An expression that fails
// on a lookup is not true of it; the first failure is told.
func each(ctx context.Context, s source.Source, r source.Request, keep *filter.Filter, stderr io.Writer, use func(source.Lookup) error) (source.Read, error) {
	told := false
	return s.Each(ctx, r, func(l source.Lookup) error {
		if keep != nil {
			ok, err := keep.Match(l.Trace)
			if err != nil && !told {
				told = true
				_, _ = fmt.Fprintf(stderr, "dnstrace: %v, with the lookup of %s; it is left out\n", err, l.Trace.QName)
			}
			if !ok {
				return nil
			}
		}
		return use(l)
	})
}

// writeLine writes one record. The line is not the caller's to append to.
func writeLine(w io.Writer, line []byte) error {
	if _, err := w.Write(line); err != nil {
		return err
	}
	_, err := w.Write([]byte{'\n'})
	return err
}
