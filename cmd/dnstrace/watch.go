package main

import (
	"context"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/source"
)

type watchOptions struct {
	readOptions
	sinceOptions
	columns []string
	once    bool
}

func newWatchCommand() *cobra.Command {
	o := &watchOptions{}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow lookups live, one line each",
		Long: "Shows every lookup as it finishes: who asked whom for what, with what result, how long\n" +
			"it took, what the cache and the upstreams did, and what is wrong with it.\n" +
			"Reads from the tracer on this node until stopped; --since begins in the past, and\n" +
			"with --once it ends with what there is now, in the order in which lookups began. From\n" +
			"a file, shows what is in it and ends.\n" +
			"From Loki, lookups come some 15 s late: that is how long the records of several nodes\n" +
			"wait for each other; --once does not wait, and goes back an hour unless --since says.\n\n" +
			"A lookup that goes on after it was shown as unanswered is shown again, as it is in the\n" +
			"end. Upstream queries of a server that could not be given to their lookup are left\n" +
			"out, unless --upstream or a filter with `role` asks for them.\n\n" +
			"Columns (--columns time,client,name,...; without it, those that fit the terminal):\n" +
			columnHelp(),
		Example: "  dnstrace watch\n" +
			"  dnstrace watch --since 5m -f 'len(diagnosis) > 0'\n" +
			"  dnstrace watch --once --since 10m -o json | jq -r .qname | sort | uniq -c\n" +
			"  dnstrace watch -f 'rcode == \"NXDOMAIN\" and client.namespace == \"demo\"'\n" +
			"  dnstrace watch --columns date,client,name,type,result,took,upstream,trace\n" +
			"  dnstrace watch --columns client,source,name,process,pid,container,netns\n" +
			"  dnstrace watch -o json > lookups.json\n" +
			"  dnstrace watch --loki http://loki:3100 --loki-query '{app=\"dnstrace\"}'\n" +
			"  kubectl logs ds/dnstrace | dnstrace watch --from -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return o.watch(ctx, cmd)
		},
	}
	o.readOptions.register(cmd, outputTable, outputJSON)
	o.registerUpstream(cmd)
	o.sinceOptions.register(cmd)
	cmd.Flags().BoolVar(&o.once, "once", false, "show the lookups that there are, in order of their start, and end")
	cmd.Flags().StringSliceVar(&o.columns, "columns", nil, "show these columns, in this order")
	// The name of a flag that was just defined is no possible error.
	_ = cmd.RegisterFlagCompletionFunc("columns", completeColumns)
	return cmd
}

// columnHelp lists the columns in lines that fit a terminal.
func columnHelp() string {
	var b strings.Builder
	line := " "
	for _, name := range render.Columns() {
		if len(line)+1+len(name) > render.DefaultWidth {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + name
	}
	return b.String() + line
}

// completeColumns completes the last of several names.
func completeColumns(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	var all []cobra.Completion
	for _, name := range render.Columns() {
		all = append(all, before+name)
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (o *watchOptions) watch(ctx context.Context, cmd *cobra.Command) error {
	keep, err := o.readOptions.validate(cmd)
	if err == nil {
		err = o.sinceOptions.validate()
	}
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	width, color := terminal(cmd)
	table, err := render.NewTable(out, render.Options{Width: width, Color: color}, o.columns...)
	if err != nil {
		return usageError{err}
	}
	show := func(l source.Lookup) error { return table.Row(l.Trace) }
	if o.output == outputJSON {
		show = func(l source.Lookup) error { return writeLine(out, l.Line) }
	}
	s := o.open(cmd, cmd.ErrOrStderr())
	take, flush := show, func() error { return nil }
	if o.once {
		started := newByStart()
		defer started.close()
		take, flush = started.add, func() error { return started.each(show) }
	}
	read, err := o.each(ctx, s, source.Request{Since: o.since, Follow: !o.once}, keep, cmd.ErrOrStderr(), take)
	if err == nil {
		err = flush()
	}
	if err == nil && ctx.Err() == nil && read.Traces == 0 {
		say(cmd.ErrOrStderr(), "there is no lookup in %s; %s", s, o.emptyRemedy())
	}
	return unlessStopped(ctx, err)
}
