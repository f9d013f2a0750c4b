// Command benchpage writes docs/benchmarks.md: its words, and a table for each part of
// a file of results, as `make bench` and `make bench-tracer` write it. `make
// benchmarks` runs all three.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/dnstrace/dnstrace/integration/figures"
)

// words are what the page says before its tables.
//
//go:embed words.md
var words string

func main() {
	page := flag.String("page", "docs/benchmarks.md", "the page to write")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: benchpage [-page FILE] RESULTS")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *page); err != nil {
		fmt.Fprintln(os.Stderr, "benchpage:", err)
		os.Exit(1)
	}
}

func run(results, page string) (err error) {
	in, err := os.Open(results)
	if err != nil {
		return err
	}
	defer in.Close()
	parts, err := figures.Read(in)
	if err != nil {
		return fmt.Errorf("%s: %w", results, err)
	}
	if len(parts) == 0 {
		return fmt.Errorf("%s holds no results: `make benchmarks` writes some", results)
	}
	out, err := os.Create(page)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.WriteString(words); err != nil {
		return err
	}
	for _, p := range parts {
		if err := p.Markdown(out); err != nil {
			return err
		}
	}
	return nil
}
