package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/trace"
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
	loki, lokiQuery, tenant   string
	access                    source.Access // of Loki
	formats                   []string
	upstream                  bool // show upstream queries whose lookup is not known, too
}

// register defines the flags; formats are those of -o, the usual one first.
func (o *readOptions) register(cmd *cobra.Command, formats ...string) {
	o.formats = formats
	f := cmd.Flags()
	f.StringVar(&o.api, "api", api.DefaultPath, "unix socket of the tracer on this node")
	f.StringVar(&o.from, "from", "", "read records from this file instead, - for standard input")
	f.StringVar(&o.loki, "loki", "", "read records from Loki at this URL instead, such as http://loki:3100; LOKI_USERNAME, LOKI_PASSWORD and others say who asks")
	f.StringVar(&o.lokiQuery, "loki-query", source.DefaultQuery, "LogQL that selects the streams with the records")
	f.StringVar(&o.tenant, "loki-tenant", "", "tenant for a Loki with several (X-Scope-OrgID); default LOKI_ORG_ID")
	f.StringVarP(&o.filter, "filter", "f", "", "only lookups for which this expression over the record's fields is true")
	f.StringVarP(&o.output, "output", "o", formats[0], "table for people, json for the records, one a line")
	// The name of a flag that was just defined is no possible error.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"loki", "loki-query", "loki-tenant", "filter"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// registerUpstream defines the flag of commands that show single lookups.
func (o *readOptions) registerUpstream(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.upstream, "upstream", false, "also show upstream queries of servers that could not be given to their lookup")
}

// shows tells whether a trace is what the command is for: a client's lookup, unless
// upstream queries are asked for, by the flag or in the filter.
func (o *readOptions) shows(t *trace.Trace, keep *filter.Filter) bool {
	return t.Role != trace.RoleUpstream || o.upstream || keep != nil && keep.Names("role")
}

// sinceOptions is the flag of commands that go back in time.
type sinceOptions struct{ since time.Duration }

func (o *sinceOptions) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&o.since, "since", 0, "only lookups of this time before now, such as 5m")
	_ = cmd.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions)
}

func (o *sinceOptions) validate() error {
	if o.since < 0 {
		return usageError{errors.New("--since: expected a duration above 0, such as 5m")}
	}
	return nil
}

// isFile tells whether records come from something that may be of any time.
func (o *readOptions) isFile() bool { return o.from != "" }

// validate checks the flags and returns the filter, nil if there is none.
func (o *readOptions) validate(cmd *cobra.Command) (*filter.Filter, error) {
	var sources []string
	for _, name := range []string{"api", "from", "loki"} {
		if cmd.Flags().Changed(name) {
			sources = append(sources, "--"+name)
		}
	}
	if len(sources) > 1 {
		return nil, usageError{fmt.Errorf("%s and %s exclude each other", sources[0], sources[1])}
	}
	for _, name := range []string{"loki-query", "loki-tenant"} {
		if cmd.Flags().Changed(name) && o.loki == "" {
			return nil, usageError{fmt.Errorf("--%s: needs --loki", name)}
		}
	}
	if o.loki != "" {
		var err error
		if o.access, err = source.EnvironmentAccess(os.Getenv); err != nil {
			return nil, usageError{err}
		}
		if o.tenant != "" {
			o.access.Tenant = o.tenant
		}
	}
	if !slices.Contains(o.formats, o.output) {
		return nil, usageError{fmt.Errorf("-o %s: expected %s", o.output, strings.Join(o.formats, " or "))}
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

// maxJoined bounds the memory of lookups that wait for their other records while those
// of a file or of Loki are joined.
const maxJoined = 64 << 20

// open returns where lookups come from; stderr is for what could not be read.
func (o *readOptions) open(cmd *cobra.Command, stderr io.Writer) source.Source {
	joining := source.Joining{
		Diagnose: diagnose.New().Trace, Now: time.Now,
		Assemble: func() source.Assembler { return assemble.New(assemble.Config{MaxBytes: maxJoined}) },
	}
	switch {
	case o.from != "":
		return source.File{Path: o.from, Stdin: cmd.InOrStdin(), Stderr: stderr, Joining: joining}
	case o.loki != "":
		return source.Loki{URL: o.loki, Query: o.lokiQuery, Access: o.access, Stderr: stderr, Joining: joining}
	}
	return source.API{Path: o.api, Stderr: stderr}
}

// emptyRemedy says what to look at where a source has no lookup at all.
func (o *readOptions) emptyRemedy() string {
	switch {
	case o.from != "":
		return "is it what `dnstrace run --output file:PATH` or the CoreDNS plugin writes?"
	case o.loki != "":
		return "does --loki-query select the streams with the records, and does --since go back far enough?"
	}
	return "has a client on this node asked anything since it was started?"
}

// unlessStopped returns nil for the error of an ended context: being stopped is how watching
// ends.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// each reads the lookups for which the filter is true. An expression that fails on a lookup
// counts as false; the first failure is reported.
func (o *readOptions) each(ctx context.Context, s source.Source, r source.Request, keep *filter.Filter, stderr io.Writer, use func(source.Lookup) error) (source.Read, error) {
	reported := false
	return s.Each(ctx, r, func(l source.Lookup) error {
		if !o.shows(l.Trace, keep) {
			return nil
		}
		if keep != nil {
			ok, err := keep.Match(l.Trace)
			if err != nil && !reported {
				reported = true
				say(stderr, "%v, with the lookup of %s; it is left out", err, l.Trace.QName)
			}
			if !ok {
				return nil
			}
		}
		return use(l)
	})
}

// writeLine writes one record, in which its writer may have put escape sequences. The line
// must not be appended to.
func writeLine(w io.Writer, line []byte) error {
	if _, err := w.Write(trace.Plain(line)); err != nil {
		return err
	}
	_, err := w.Write([]byte{'\n'})
	return err
}
