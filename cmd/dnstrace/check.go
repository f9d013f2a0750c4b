package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/kube"
	"github.com/dnstrace/dnstrace/tracer/listener"
	"github.com/dnstrace/dnstrace/tracer/privilege"
)

func newCheckCommand() *cobra.Command {
	ports := []uint{53}
	var kubernetes, path string
	var ready bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this kernel and these privileges allow",
		Long: "Tries, on this node and with these privileges, what `dnstrace run` needs, and\n" +
			"says for each thing that is missing what is lost without it and what would help.\n" +
			"Where a tracer runs already, it says what that one has lost.\n" +
			"Exit status 1 if `dnstrace run` would not work; with --ready, if no tracer runs or\n" +
			"it does not read packets: a probe for Kubernetes.",
		Example: "  dnstrace check\n" +
			"  dnstrace check --port 53 --port 5300",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ready {
				return checkReady(cmd.Context(), path)
			}
			p, err := portNumbers(ports)
			if err != nil {
				return err
			}
			names := []capture.Finding{listener.Probe(), kube.Probe(cmd.Context(), kubernetes)}
			return printFindings(cmd.OutOrStdout(), slices.Concat(privilege.Probe(), capture.Probe(p), names, running(cmd.Context(), path)))
		},
	}
	cmd.Flags().StringVar(&kubernetes, "kubernetes", kube.Auto, "where names of pods and Services come from, as for run")
	cmd.Flags().BoolVar(&ready, "ready", false, "only ask the tracer that runs whether every hook is attached and packets are read")
	cmd.Flags().UintSliceVar(&ports, "port", ports, "DNS port to observe; may be repeated. The port behind a translation of one of them (a Service's targetPort) is learned, not asked for")
	cmd.Flags().StringVar(&path, "api", api.DefaultPath, "unix socket of the local API of a tracer that runs")
	return cmd
}

func printFindings(w io.Writer, findings []capture.Finding) error {
	works := true
	for _, f := range findings {
		state := "ok     "
		switch {
		case !f.OK && f.Required:
			state, works = "MISSING", false
		case !f.OK:
			state = "limited"
		}
		if _, err := fmt.Fprintf(w, "%s  %-24s %s\n", state, f.What, f.Detail); err != nil {
			return err
		}
		if f.OK {
			continue
		}
		if _, err := fmt.Fprintf(w, "         %-24s without it: %s\n         %-24s remedy: %s\n", "", f.Lost, "", f.Remedy); err != nil {
			return err
		}
	}
	if !works {
		return errors.New("`dnstrace run` would not work here: see the lines marked MISSING")
	}
	return nil
}
