package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

const manDir = "../../docs/man"

// manPages writes the manual pages as they are now.
func manPages(t *testing.T, dir string) {
	t.Helper()
	root := newRootCommand()
	var plain func(*cobra.Command)
	plain = func(c *cobra.Command) {
		c.Long = listsKept(c.Long)
		c.DisableAutoGenTag = true // a date that changes with every day
		for _, sub := range c.Commands() {
			plain(sub)
		}
	}
	plain(root)
	// A page has a date by convention; ours is that of the record's version.
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "dnstrace", Manual: "dnstrace"}, dir); err != nil {
		t.Fatal(err)
	}
}

// listsKept marks lines that are set in, as Markdown does it, so that they keep
// their shape on a page.
func listsKept(text string) string {
	var lines []string
	inside := false
	for line := range strings.SplitSeq(text, "\n") {
		set := strings.HasPrefix(line, "  ")
		if set != inside && line != "" {
			lines = append(lines, "")
			inside = set
		}
		if set {
			line = "  " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// The manual pages in docs are those of the commands; DNSTRACE_UPDATE=1 rewrites
// them.
func TestManPagesAreCurrent(t *testing.T) {
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		manPages(t, manDir)
	}
	dir := t.TempDir()
	manPages(t, dir)
	want, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(want) < 6 {
		t.Fatalf("%d pages, %v", len(want), err)
	}
	for _, page := range want {
		name := filepath.Base(page)
		fresh, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(filepath.Join(manDir, name))
		if err != nil || !bytes.Equal(fresh, committed) {
			t.Errorf("docs/man/%s is not current (%v): DNSTRACE_UPDATE=1 go test ./cmd/dnstrace -run ManPages", name, err)
		}
	}
	if have, err := filepath.Glob(filepath.Join(manDir, "*")); err != nil || len(have) != len(want) {
		t.Errorf("docs/man has %d files for %d commands, %v", len(have), len(want), err)
	}
}
