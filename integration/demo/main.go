// Command demo shows what dnstrace is for, on a fresh machine and without a
// cluster: it builds a small node out of network namespaces, makes four lookups
// in it, and prints the complete trace of each with its diagnosis. Then it
// removes all that it made. It needs root; `make demo` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/stage"
)

func main() {
	coredns := flag.String("coredns", "bin/coredns", "CoreDNS with the dnstrace plugin")
	dnstrace := flag.String("dnstrace", "bin/dnstrace", "the node tracer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, lab.Config{CoreDNS: *coredns, Dnstrace: *dnstrace}); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// run builds the node, shows the lookups and removes the node again.
func run(ctx context.Context, out io.Writer, cfg lab.Config) (err error) {
	l, err := lab.Build(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, l.Outputs())
		}
		err = errors.Join(err, l.Close(), os.RemoveAll(l.Dir()))
	}()
	if err := stage.Start(l); err != nil {
		return err
	}
	describe(out, l)
	for i, s := range scenes(l) {
		fmt.Fprintf(out, "\n━━━ %d. %s\n", i+1, s.headline)
		if err := s.show(ctx, out, l); err != nil {
			return fmt.Errorf("lookup %d, of %s: %w", i+1, s.name, err)
		}
	}
	return nil
}

// describe tells what was built.
func describe(out io.Writer, l *lab.Lab) {
	fmt.Fprintf(out, `A node out of network namespaces:
  pod client-a   %v
  Service        %v, translated (DNAT) to the pod coredns
  pod coredns    %v, CoreDNS with dnstrace, cache and forward
  upstreams      %v, then %v
and dnstrace run on the host, which sees them all.
`, l.Host("client-a").V4, lab.ServiceV4.Addr(), l.Host(lab.CoreDNS).V4,
		l.Upstream(0).V4().Addr(), l.Upstream(1).V4().Addr())
}
