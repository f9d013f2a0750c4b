package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/source"
)

func newWatchCommand() *cobra.Command {
	o := &readOptions{}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow lookups live, one line each",
		Long: "Shows every lookup as it finishes: who asked whom for what, with what result, how long\n" +
			"it took, what the cache and the upstreams did, and what is wrong with it.\n" +
			"Reads from the tracer on this node until stopped; --since begins in the past.\n" +
			"From a file, shows what is in it and ends.",
		Example: "  dnstrace watch\n" +
			"  dnstrace watch --since 5m -f 'len(diagnosis) > 0'\n" +
			"  dnstrace watch -f 'rcode == \"NXDOMAIN\" and client.namespace == \"demo\"'\n" +
			"  dnstrace watch -o json > lookups.json\n" +
			"  kubectl logs ds/dnstrace | dnstrace watch --from -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return o.watch(ctx, cmd)
		},
	}
	o.register(cmd)
	return cmd
}

func (o *readOptions) watch(ctx context.Context, cmd *cobra.Command) error {
	keep, err := o.validate(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	width, color := terminal(cmd)
	table := render.NewTable(out, render.Options{Width: width, Color: color})
	show := func(l source.Lookup) error { return table.Row(l.Trace) }
	if o.output == outputJSON {
		show = func(l source.Lookup) error { return writeLine(out, l.Line) }
	}
	_, err = each(ctx, o.open(cmd), source.Request{Since: o.since, Follow: true}, keep, cmd.ErrOrStderr(), show)
	if ctx.Err() != nil {
		// Being stopped is how watching ends.
		return nil
	}
	return err
}
