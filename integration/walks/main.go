// Command walks rewrites what the pages of docs/ show: for each page it builds a
// small node out of network namespaces, provokes what the page is about, runs the
// page's commands and puts what they print beneath them. It needs root; `make
// walks` runs it. Its test does the same and compares with what is committed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/stage"
)

func main() {
	docs := flag.String("docs", "docs", "where the pages are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := rewrite(ctx, *docs, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "walks: %v\n", err)
		os.Exit(1)
	}
}

// rewrite rewrites the pages, or those of the names.
func rewrite(ctx context.Context, docs string, names []string) error {
	if len(names) == 0 {
		names = pageNames()
	}
	for _, name := range names {
		path := filepath.Join(docs, name+".md")
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		page, err := walk(ctx, name, string(old))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// walk returns a page with what its commands print now.
func walk(ctx context.Context, name, page string) (_ string, err error) {
	s, ok := scenes[name]
	if !ok {
		return "", fmt.Errorf("there is no scene for the page %s", name)
	}
	l, err := lab.Build(lab.Config{Clients: clients})
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, l.Outputs())
		}
		err = errors.Join(err, l.Close(), os.RemoveAll(l.Dir()))
	}()
	if err := stage.Start(l); err != nil {
		return "", err
	}
	if err := s.provoke(ctx, l); err != nil {
		return "", fmt.Errorf("provoke it: %w", err)
	}
	if err := stage.Traces(ctx, l, s.lookups); err != nil {
		return "", err
	}
	sh, err := newShell(l)
	if err != nil {
		return "", err
	}
	return fill(page, func(command string) (string, error) { return sh.run(ctx, command) })
}
