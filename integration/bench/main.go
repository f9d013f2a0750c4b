// Command bench measures what recording costs: it runs bin/coredns on loopback
// as it is, with log, with log in JSON, with dnstap, and with dnstrace writing
// every query to a file, to outputs that are all blocked, or one in a hundred to a
// file, and prints the CPU time that each takes for a query relative to the first, the
// allocations that it makes more, and how long answers took. With -patched it
// compares bin/coredns with another CoreDNS instead, both without dnstrace. With -profile it
// writes what the time and the allocations of dnstrace are spent on instead.
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
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.binary, "coredns", "bin/coredns", "CoreDNS with dnstrace compiled in")
	flag.StringVar(&cfg.before, "before", "", "another CoreDNS with dnstrace, to compare with")
	flag.StringVar(&cfg.noop, "noop", "", "CoreDNS with a plugin that only makes room on the stack: compare with that, too")
	flag.StringVar(&cfg.patched, "patched", "", "another CoreDNS: compare both as they are, without dnstrace")
	flag.IntVar(&cfg.rounds, "rounds", 30, "rounds; in each every variant has a turn")
	flag.IntVar(&cfg.starts, "starts", 5, "how often the servers are started anew, after a share of the rounds")
	flag.IntVar(&cfg.cached, "cached", 2000, "queries of a turn with cached answers")
	flag.IntVar(&cfg.forwarded, "forwarded", 1000, "queries of a turn with forwarded ones")
	flag.DurationVar(&cfg.limit, "time", 100*time.Second, "no round starts when this is over; shared by the two")
	flag.StringVar(&cfg.only, "only", "", "only one of cached and forwarded")
	flag.StringVar(&cfg.results, "results", "", "append the results to this file, a JSON line for each part")
	flag.StringVar(&cfg.profile, "profile", "", "measure nothing, but write profiles of CoreDNS with dnstrace to this folder")
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
	noop, patched     string
	rounds, starts    int
	cached, forwarded int
	limit             time.Duration
	only, results     string
	profile           string
	minimal           bool
}

func (c config) check() error {
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("%w: build it with `make build`", err)
	}
	for _, other := range []string{c.before, c.noop, c.patched} {
		if other == "" {
			continue
		}
		if _, err := os.Stat(other); err != nil {
			return err
		}
	}
	if c.only != "" && c.only != cachedName && c.only != forwardedName {
		return fmt.Errorf("-only %s: expected cached or forwarded", c.only)
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
	m, err := figures.Here(cfg.binary, "-version")
	if err != nil {
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

	workloads := []workload{{cachedName, cfg.cached}, {forwardedName, cfg.forwarded}}
	if cfg.only != "" {
		workloads = slices.DeleteFunc(workloads, func(w workload) bool { return w.name != cfg.only })
	}
	fmt.Println(m)
	title := "what recording costs"
	if cfg.patched != "" {
		title = "what the patches change"
	}
	for _, w := range workloads {
		if cfg.profile != "" {
			if err := b.profile(w); err != nil {
				return err
			}
			continue
		}
		if err := b.measure(w, time.Now().Add(cfg.limit/time.Duration(len(workloads)))); err != nil {
			return err
		}
		part := figures.Part{Machine: m, Command: "make bench BENCHFLAGS='-only " + w.name + "'",
			Title: "CoreDNS, " + w.name + " answers: " + title, Figures: b.figures(w.name)}
		if err := errors.Join(figures.Print(os.Stdout, part.Title, part.Figures), part.Append(cfg.results)); err != nil {
			return err
		}
	}
	return nil
}
