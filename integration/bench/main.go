// Command bench measures what recording costs: it runs bin/coredns on loopback
// as it is, with log, with log in JSON, with dnstap, and with dnstrace writing
// every query to a file, or one in a hundred, and prints the CPU time that each
// takes for a query relative to the first, and the allocations that it makes more.
//
// All of them run at once and are asked in turns of a fraction of a second, so
// that whatever else the machine does hits them alike, and each turn is compared
// with vanilla's turn of the same round.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.binary, "coredns", "bin/coredns", "CoreDNS with dnstrace compiled in")
	flag.StringVar(&cfg.before, "before", "", "another CoreDNS with dnstrace, to compare with")
	flag.IntVar(&cfg.rounds, "rounds", 30, "rounds; in each every variant has a turn")
	flag.IntVar(&cfg.starts, "starts", 5, "how often the servers are started anew, after a share of the rounds")
	flag.IntVar(&cfg.cached, "cached", 2000, "queries of a turn with cached answers")
	flag.IntVar(&cfg.forwarded, "forwarded", 1000, "queries of a turn with forwarded ones")
	flag.DurationVar(&cfg.limit, "time", 100*time.Second, "no round starts when this is over; half of it for cached answers")
	flag.BoolVar(&cfg.minimal, "minimal", false, "only cache and forward, without errors, prometheus and loadbalance")
	flag.Parse()
	if err := run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	binary, before    string
	rounds, starts    int
	cached, forwarded int
	limit             time.Duration
	minimal           bool
}

func (c config) check() error {
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("%w: build it with `make build`", err)
	}
	if c.before != "" {
		if _, err := os.Stat(c.before); err != nil {
			return err
		}
	}
	if c.rounds < 1 || c.starts < 1 || c.starts > c.rounds || c.cached < 1 || c.forwarded < 1 {
		return errors.New("-rounds, -starts, -cached and -forwarded: expected at least 1, and no more starts than rounds")
	}
	return nil
}

func run(cfg config) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dnstrace-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := newBench(cfg, dir)
	if err != nil {
		return err
	}
	defer b.close()

	for _, w := range []workload{{"cached", cfg.cached}, {"forwarded", cfg.forwarded}} {
		if err := b.measure(w, time.Now().Add(cfg.limit/2)); err != nil {
			return err
		}
	}
	fmt.Println("CPU time of CoreDNS a query (user + system), each turn relative to vanilla's of the same round")
	for _, w := range []string{"cached", "forwarded"} {
		b.print(w)
	}
	return nil
}
