package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/oneline"
	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/source"
	"github.com/dnstrace/dnstrace/tracer/top"
)

// outputRows is a format that only top has.
const outputRows = "rows"

// defaultWindow is long enough for a rate, and short enough to see a change.
const defaultWindow = time.Minute

type topOptions struct {
	readOptions
	window  time.Duration
	once    bool
	sort    string
	reverse bool
}

func newTopCommand() *cobra.Command {
	o := &topOptions{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show timeouts, latency, volume per client, and how upstreams fare",
		Long: "Sums up the lookups of the last minute (--window): for each client (its pod, else its\n" +
			"container or address with the process) how many there were, how many got no response,\n" +
			"and how long the others took; for each upstream how its attempts fared. /S is the\n" +
			"average, PEAK/S the number in the busiest second. P50 and P99 are within 1 % of the\n" +
			"exact values, everything else is exact.\n\n" +
			"In a terminal the table is drawn anew every second:\n" +
			"  < >    sort by the column before or after (also the arrow keys)\n" +
			"  r      turn the order round\n" +
			"  space  hold the picture, and go on\n" +
			"  q      quit\n\n" +
			"With --once, from a file, or where the output is no terminal, it is printed once.\n" +
			"From Loki, lookups come some 15 s late: that is how long the records of several nodes\n" +
			"wait for each other, and a window is that much behind.\n" +
			"A file is summed up as a whole, unless --window says otherwise: it then ends with the\n" +
			"last lookup in the file.",
		Example: "  dnstrace top\n" +
			"  dnstrace top --once --sort p99\n" +
			"  dnstrace top -f 'client.namespace == \"demo\"' --window 10m\n" +
			"  dnstrace top --from records.jsonl\n" +
			"  dnstrace top --once -o rows --loki http://loki:3100 --window 1h",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return o.top(ctx, cmd)
		},
	}
	o.register(cmd, outputTable, outputJSON, outputRows)
	f := cmd.Flags()
	f.Lookup("output").Usage = "table for people, rows for the same in JSON, json for the records"
	f.DurationVar(&o.window, "window", defaultWindow, "sum up the lookups of this time before now")
	f.BoolVar(&o.once, "once", false, "print the table once")
	f.StringVar(&o.sort, "sort", string(top.ByTimeouts), "sort by: "+keyNames())
	f.BoolVar(&o.reverse, "reverse", false, "the smallest first")
	// The name of a flag that was just defined is no possible error.
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(strings.Split(keyNames(), " "), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func keyNames() string {
	var names []string
	for _, k := range top.Keys() {
		names = append(names, string(k))
	}
	return strings.Join(names, " ")
}

func (o *topOptions) top(ctx context.Context, cmd *cobra.Command) error {
	keep, err := o.validate(cmd)
	if err != nil {
		return err
	}
	if !slices.Contains(top.Keys(), top.Key(o.sort)) {
		return usageError{fmt.Errorf("--sort %s: expected one of %s", o.sort, keyNames())}
	}
	if o.window <= 0 {
		return usageError{errors.New("--window: expected a duration above 0, such as 5m")}
	}
	width, color := terminal(cmd)
	live := width > 0 && !o.once && o.output == outputTable && (o.from == "" || o.from == "-")
	if o.isFile() && !live && !cmd.Flags().Changed("window") {
		o.window = 0
	}
	stderr := cmd.ErrOrStderr()
	last := &lastMessage{}
	if live {
		stderr = last
	}
	s := o.open(cmd, stderr)
	if o.output == outputJSON {
		return o.records(ctx, cmd, s, keep)
	}
	sums := &shared{sums: top.New(top.Config{Window: o.window})}
	add := func(l source.Lookup) error {
		sums.add(l)
		return nil
	}
	read := func(ctx context.Context) error {
		_, err := o.each(ctx, s, source.Request{Since: o.since(), Follow: live}, keep, stderr, add)
		return err
	}
	draw := render.TopOptions{Options: render.Options{Width: width, Color: color}, Sort: top.Key(o.sort), Reverse: o.reverse, Description: s.String()}
	if live {
		b := &board{options: draw, message: last.String, view: func() top.View { return sums.view(o.end(sums)) }}
		return o.live(ctx, cmd, b, read)
	}
	if err := read(ctx); err != nil {
		return err
	}
	v := sums.view(o.end(sums))
	if o.output == outputRows {
		v.Sort(draw.Sort, draw.Reverse)
		return printRows(cmd.OutOrStdout(), &v)
	}
	return render.Top(cmd.OutOrStdout(), &v, draw)
}

// records prints the lookups that a table would sum up.
func (o *topOptions) records(ctx context.Context, cmd *cobra.Command, s source.Source, keep *filter.Filter) error {
	_, err := o.each(ctx, s, source.Request{Since: o.since(), Follow: !o.once}, keep, cmd.ErrOrStderr(), func(l source.Lookup) error {
		return writeLine(cmd.OutOrStdout(), l.Line)
	})
	return unlessStopped(ctx, err)
}

// since is what to ask a source for. The window of a file ends with its last
// lookup, which is known only at its end.
func (o *topOptions) since() time.Duration {
	if o.isFile() {
		return 0
	}
	return o.window
}

// end is when the window ends: now, or with the last lookup of a file.
func (o *topOptions) end(s *shared) time.Time {
	if o.isFile() {
		return s.latest()
	}
	return time.Now()
}

// live draws the table every second until it is stopped.
func (o *topOptions) live(ctx context.Context, cmd *cobra.Command, b *board, read func(context.Context) error) error {
	screen, err := openScreen(cmd)
	if err != nil {
		return err
	}
	reading, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- read(reading) }()
	err = b.run(ctx, screen, done)
	cancel()
	err = errors.Join(err, screen.Close())
	if m := b.message(); m != "" {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), oneline.Message(m)) // which says who says it
	}
	return unlessStopped(ctx, err)
}

// shared are sums that one goroutine adds to and another draws.
type shared struct {
	mu   sync.Mutex
	sums *top.Sums
}

func (s *shared) add(l source.Lookup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums.Add(l.Trace)
}

func (s *shared) view(now time.Time) top.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sums.View(now)
}

func (s *shared) latest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sums.Latest()
}

// printRows prints every row as one JSON object a line.
func printRows(w io.Writer, v *top.View) error {
	var rows []any
	for i := range v.Clients {
		rows = append(rows, &v.Clients[i])
	}
	for i := range v.Upstreams {
		rows = append(rows, &v.Upstreams[i])
	}
	for _, row := range rows {
		line, err := json.Marshal(row)
		if err == nil {
			err = writeLine(w, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
