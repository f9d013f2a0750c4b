// Command dnstrace observes DNS lookups on a node and explains them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dnstrace/dnstrace/tracer/oneline"
	"github.com/dnstrace/dnstrace/tracer/render"
)

// version and commit are set by the linker (Makefile). A build with plain Go knows its
// module's version, and its commit where it was built in a clone.
var version, commit string

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func buildCommit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, suffix := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			suffix = "-dirty"
		}
	}
	return revision + suffix
}

// Exit statuses, by contract.
const (
	exitOK     = 0
	exitFailed = 1 // the work could not be done
	exitUsage  = 2 // the arguments are wrong
)

// usageError is an error of the command line.
type usageError struct{ error }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.error }

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit status. An error is one
// line that says why and what would help.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	var usage usageError
	if errors.As(err, &usage) {
		say(stderr, "%s; see `%s --help`", line, cmd.CommandPath())
		return exitUsage
	}
	say(stderr, "%s", line)
	return exitFailed
}

// say writes one line for people. It sanitizes what it quotes, which may hold line breaks,
// escape sequences, or a URL with a password.
func say(w io.Writer, format string, args ...any) {
	// Standard error is the last resort: nothing can be done when it fails.
	_, _ = fmt.Fprintf(w, "dnstrace: %s\n", oneline.Message(fmt.Sprintf(format, args...)))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "dnstrace",
		Short: "Trace DNS lookups from the client's packet through CoreDNS to the upstream and back",
		Long: "dnstrace shows what happened to a DNS lookup on its whole way: client, node, Service,\n" +
			"CoreDNS with its plugins, upstream, and back; where it was lost, and why.",
		Example: "  dnstrace check                      # would it work on this node?\n" +
			"  dnstrace run                        # observe this node\n" +
			"  dnstrace watch                      # elsewhere: lookups as they finish\n" +
			"  dnstrace top                        # who waits, and how each upstream fares\n" +
			"  dnstrace explain example.com        # the latest lookup of a name, in full",
		Version:       buildVersion() + " (commit " + buildCommit() + ")",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().Bool("no-color", false, "no colours; also off if NO_COLOR is set, or the output is no terminal")
	root.AddCommand(newRunCommand(), newWatchCommand(), newExplainCommand(), newTopCommand(), newCheckCommand())
	markUsageErrors(root)
	fitHelp(root)
	return root
}

// markUsageErrors makes what cobra itself finds wrong an error of usage.
func markUsageErrors(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		markUsageErrors(c)
	}
}

// terminal says what the output of a command can show. width is 0 if it is no
// terminal.
func terminal(cmd *cobra.Command) (width int, color bool) {
	f, ok := cmd.OutOrStdout().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width == 0 {
		// A serial console, for example, does not know.
		width = render.DefaultWidth
	}
	off, err := cmd.Flags().GetBool("no-color")
	return width, err == nil && !off && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
