package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dnstrace/dnstrace/tracer/render"
)

// Help fits a terminal, whatever the command.
func TestHelpFitsATerminal(t *testing.T) {
	for _, cmd := range []string{"", "run", "watch", "explain", "top", "check", "completion"} {
		status, out, stderr := call(t, "", append(strings.Fields(cmd), "--help")...)
		if status != exitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: status %d, %s%s", cmd, status, out, stderr)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > render.DefaultWidth {
				t.Errorf("%s --help: %d columns: %s", cmd, n, line)
			}
		}
	}
}

func TestParagraphs(t *testing.T) {
	for text, want := range map[string]string{
		"one two\nthree":                 "one two\nthree",
		"one two three\nfour":            "one two\nthree four",
		"one\ntwo\n\nthree":              "one two\n\nthree",
		"list:\n  a b c d e f g\nafter":  "list:\n  a b c d e f g\nafter",
		"averyverylongword\nand another": "averyverylongword\nand\nanother",
	} {
		if got := paragraphs(text, 10); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// What the user is told about a source without any lookup, and where to look.
func TestNothingThere(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"explain", "--from", "-"}, exitFailed, "no lookup: there is none in standard input; is it what `dnstrace run"},
		{[]string{"explain", "example.com", "--from", "-"}, exitFailed, "no lookup matches example.com: there is none in standard input"},
		{[]string{"watch", "--from", "-"}, exitOK, "there is no lookup in standard input; is it what `dnstrace run"},
		{[]string{"explain", "example.com", "A"}, exitUsage, "expected one name, pod, address, result, finding or trace id, got 2: example.com A"},
	} {
		status, _, stderr := call(t, "", tc.args...)
		if status != tc.status || !strings.Contains(stderr, tc.want) {
			t.Errorf("%q: status %d, %s", tc.args, status, stderr)
		}
	}
}
