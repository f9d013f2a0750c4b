package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/source"
)

type explainOptions struct {
	readOptions
	sinceOptions
	limit int
	all   bool
	full  bool
	pcap  string
}

func newExplainCommand() *cobra.Command {
	o := &explainOptions{}
	cmd := &cobra.Command{
		Use:   "explain [NAME | POD | ADDRESS | RESULT | FINDING | TRACE-ID]",
		Short: "Show the complete way of one lookup, with its diagnosis",
		Long: "Says of one lookup what is wrong and what to do, draws it as a waterfall (every device,\n" +
			"plugin and upstream that it passed, where it was and what it cost), and quotes the evidence.\n\n" +
			"The latest come first, so all are read before the first is drawn. That takes the same\n" +
			"memory however large a file is: what is more is sorted on disk, which takes half as much\n" +
			"room as the file, with --all three quarters (TMPDIR says where).\n\n" +
			"The lookups of one call of the program (A and AAAA, search suffixes, repeats) are listed,\n" +
			"one a line, and the worst of those that match is drawn: one that failed before one that did\n" +
			"not, or of another if all that match are well; --full draws each.\n\n" +
			"Upstream queries of a server that could not be given to their lookup are shown where no\n" +
			"client's lookup matches, or after those with --upstream.\n\n" +
			"Without an argument it is the latest lookup; with one, the latest of that\n" +
			"  NAME       as it was looked up, or if it was not, with a search suffix (but\n" +
			"             for a name with a final dot); * stands for any characters\n" +
			"  POD        of the client or the server, or NAMESPACE/POD; * as above\n" +
			"  ADDRESS    of the client, the server or an upstream, with or without :PORT\n" +
			"  RESULT     a response code such as NXDOMAIN, or unanswered, or dropped\n" +
			"  FINDING    its code, such as upstream-timeout\n" +
			"  TRACE-ID   32 hexadecimal digits, as `watch -o json` and logs show them",
		Example: "  dnstrace explain example.com\n" +
			"  dnstrace explain '*.svc.cluster.local' --limit 5 --since 10m\n" +
			"  dnstrace explain demo/mypod --all -f 'outcome != \"answered\"'\n" +
			"  dnstrace explain 6b01090041156cb99fd7e9f79b794954\n" +
			"  dnstrace explain SERVFAIL --since 1h --all -o json\n" +
			"  dnstrace explain upstream-timeout\n" +
			"  dnstrace explain example.com --from records.jsonl\n" +
			"  dnstrace explain SERVFAIL --pcap servfail.pcapng\n" +
			"  dnstrace explain example.com --pcap - | tshark -r -\n" +
			"  dnstrace explain 'www.*' --loki http://loki:3100 --since 24h",
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error { return o.explain(cmd, args) },
	}
	o.readOptions.register(cmd, outputTable, outputJSON)
	o.registerUpstream(cmd)
	o.sinceOptions.register(cmd)
	cmd.Flags().IntVarP(&o.limit, "limit", "n", 1, "show the latest N lookups, or calls, that match, the latest first")
	cmd.Flags().BoolVar(&o.all, "all", false, "show all lookups, or calls, that match")
	cmd.Flags().BoolVar(&o.full, "full", false, "draw every lookup of a call, not only the worst")
	cmd.Flags().StringVar(&o.pcap, "pcap", "", "write the packets of what is shown to this pcapng file; - for standard output alone")
	return cmd
}

// oneTarget allows for what explain looks for.
func oneTarget(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("expected one name, pod, address, result, finding or trace id, got %d: %s", len(args), strings.Join(args, " "))
	}
	return nil
}

func (o *explainOptions) explain(cmd *cobra.Command, args []string) error {
	keep, err := o.readOptions.validate(cmd)
	if err == nil {
		err = o.sinceOptions.validate()
	}
	if err != nil {
		return err
	}
	if o.limit < 1 {
		return usageError{errors.New("--limit: expected a number above 0; --all shows everything")}
	}
	request := source.Request{Since: o.since}
	var target *filter.Target
	if len(args) > 0 {
		target = filter.ParseTarget(args[0])
		request.Names, request.Text, request.ID = target.Names(), target.Text(), target.ID()
	}
	asked := o.upstream || keep != nil && keep.Names("role")
	o.upstream = true // read them, whatever is shown
	s := o.open(cmd, cmd.ErrOrStderr())
	limit := o.limit
	if o.all {
		limit = 0
	}
	// A record is asked for as such; of a call, the worst comes first, if not all are wanted.
	alone := !request.ID.IsZero() || o.output == outputJSON && limit == 0
	found := searches{target: target, lookups: newSearch(limit, alone), suffixed: newSearch(limit, alone), upstream: newSearch(limit, alone)}
	defer found.close()
	read, err := o.each(cmd.Context(), s, request, keep, cmd.ErrOrStderr(), found.add)
	if err != nil {
		return err
	}
	shown := found.shown(asked)
	if len(shown) == 0 {
		return o.nothing(target, s, read)
	}
	return o.show(cmd, shown, choice{target: target, full: o.full})
}

// searches look for clients' lookups, for those of the name with a search suffix, and for
// upstream queries whose lookup is not known.
type searches struct {
	target                      *filter.Target // nil: any
	lookups, suffixed, upstream search
}

func (s *searches) add(l source.Lookup) error {
	found := s.lookups
	if l.Trace.Role == trace.RoleUpstream {
		found = s.upstream
	}
	if s.target == nil || s.target.Match(l.Trace) {
		return found.add(l)
	}
	if found == s.lookups && s.target.MatchSuffixed(l.Trace) {
		if err := s.suffixed.add(l); err != nil {
			return err
		}
	}
	return found.addOther(l)
}

// shown returns what is shown: clients' lookups, and after them upstream queries if they
// were asked for. Of a name that no client asked for it is that name with a search suffix;
// what was asked for and is no client's are upstream queries alone.
func (s *searches) shown(upstream bool) []search {
	var all []search
	switch {
	case s.lookups.found() > 0:
		all = append(all, s.lookups)
	case s.suffixed.found() > 0:
		all = append(all, s.suffixed)
	}
	if s.upstream.found() > 0 && (upstream || s.target != nil && len(all) == 0) {
		all = append(all, s.upstream)
	}
	return all
}

func (s *searches) close() {
	s.lookups.close()
	s.suffixed.close()
	s.upstream.close()
}

// nothing says what was searched in vain.
func (o *explainOptions) nothing(target *filter.Target, s source.Source, read source.Read) error {
	what := "no lookup"
	if target != nil {
		what += " matches " + target.String()
	}
	if o.filter != "" {
		what += " with the filter " + o.filter
	}
	if o.since > 0 {
		what += fmt.Sprintf(" in the last %s", o.since)
	}
	searched := english.Plural(read.Traces, "trace", "")
	if read.Others > 0 {
		searched += " and " + fmt.Sprintf("%d of other names", read.Others)
	}
	if read.Traces+read.Others == 0 {
		return fmt.Errorf("%s: there is none in %s; %s", what, s, o.emptyRemedy())
	}
	if read.Reach != "" {
		searched += " (" + read.Reach + ")"
	}
	return fmt.Errorf("%s: %s searched in %s; `dnstrace watch` shows what there is", what, searched, s)
}

// show draws what was found, and writes its packets if they are wanted.
func (o *explainOptions) show(cmd *cobra.Command, found []search, c choice) error {
	packets, err := o.newPackets(cmd)
	if err != nil {
		return err
	}
	defer packets.close()
	out := cmd.OutOrStdout()
	width, color := terminal(cmd)
	first := true
	left := 0
	for _, s := range found {
		room := o.limit // of records
		if err := s.each(func(group []kept) error {
			if o.output == outputJSON {
				records, err := c.records(group, room, o.all)
				if err != nil {
					return err
				}
				group = records
				room -= len(group)
			}
			if err := packets.add(group); err != nil || o.pcap == "-" {
				return err
			}
			if o.output == outputJSON {
				return writeGroup(out, group)
			}
			if !first {
				if _, err := io.WriteString(out, "\n\n"); err != nil {
					return err
				}
			}
			first = false
			return c.draw(out, group, render.Options{Width: width, Color: color})
		}); err != nil {
			return err
		}
		left += s.left()
	}
	if err := packets.write(); err != nil {
		return err
	}
	if left > 0 && o.output == outputTable && o.pcap != "-" {
		verb, it := "match", "them"
		if left == 1 {
			verb, it = "matches", "it"
		}
		say(cmd.ErrOrStderr(), "%s %s too; --limit N or --all shows %s", english.Plural(left, "earlier lookup", ""), verb, it)
	}
	return nil
}
