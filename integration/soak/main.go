// Command soak lets the real binaries work for a chosen time, under mixed traffic
// from pods that come and go, and checks what only time shows:
//
//   - that memory, file descriptors, goroutines and BPF maps of the tracer and of
//     CoreDNS do not grow: the last third of the time is compared with the first
//     third after a warm-up, not with a number that suits one machine only;
//   - that every lookup ended as it must, with the address or the response code that
//     the upstream has for its name;
//   - that every lookup which a client made has one trace that says what the client
//     saw, and has no part of another, or is among the losses that were counted. The
//     tracer observes this run alone, so that they are its own;
//   - that every packet which the tracer saw is told in a trace, or was counted;
//   - that every record which CoreDNS wrote reached the tracer, or was counted.
//
// It ends by itself, prints a table, leaves nothing behind, and exits 1 where
// something does not hold. It needs root; `make soak` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// leastTime is what comparing windows takes: the finished traces in memory must
// have begun to leave it before the first window.
const leastTime = 2 * time.Minute

// config is what the flags say.
type config struct {
	coredns, dnstrace string
	time              time.Duration
	rate              float64
}

func main() {
	var cfg config
	flag.StringVar(&cfg.coredns, "coredns", "bin/coredns", "CoreDNS")
	flag.StringVar(&cfg.dnstrace, "dnstrace", "bin/dnstrace", "the node tracer")
	flag.DurationVar(&cfg.time, "time", 10*time.Minute, "how long clients ask; at least "+leastTime.String())
	flag.Float64Var(&cfg.rate, "rate", 200, "lookups a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// errFailed says that the table shows what does not hold.
var errFailed = errors.New("not everything held; see FAILED above")

func run(ctx context.Context, cfg config) (err error) {
	if cfg.time < leastTime {
		return fmt.Errorf("-time %s: expected %s or more: what grows does not show in less", cfg.time, leastTime)
	}
	n, err := newNode(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	fmt.Printf("%s of %.0f lookups a second, from pods that come and go\n\n", cfg.time, cfg.rate)

	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan error, 1)
	var vitals []sample
	go func() {
		var err error
		vitals, err = n.watch(watching)
		watched <- err
	}()
	// Until the clients are done; what watches ends with them.
	err = n.traffic(ctx, cfg)
	stopWatching()
	if err := errors.Join(err, <-watched, ctx.Err()); err != nil {
		return err
	}
	counted, err := n.settle(ctx)
	if err != nil {
		return err
	}
	if !report(os.Stdout, n.ledger, counted, vitals) {
		return errFailed
	}
	return nil
}
