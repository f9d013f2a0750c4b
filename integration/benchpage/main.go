// Command benchpage writes docs/benchmarks.md: its words, and a table for each part of
// a file of results, as `make bench` and `make bench-tracer` write it. `make
// benchmarks` runs all three. It fails, with the page written, where a row misses its
// goal and words.md does not say why.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

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
	var text strings.Builder
	text.WriteString(words)
	for _, p := range parts {
		if err := p.Markdown(&text); err != nil {
			return err
		}
	}
	if _, err := out.WriteString(text.String()); err != nil {
		return err
	}
	if rows := unexplained(text.String()); len(rows) > 0 {
		return fmt.Errorf("%s: a goal is missed without a cause: integration/benchpage/words.md needs a line for each that begins with\n%s", page, strings.Join(rows, "\n"))
	}
	return nil
}
