package main

import (
	"strings"
	"testing"
)

// --version says which commit it is, for who wants to know what runs.
func TestVersion(t *testing.T) {
	old, oldCommit := version, commit
	defer func() { version, commit = old, oldCommit }()
	version, commit = "v1.2.3", "0123456789abcdef0123456789abcdef01234567"
	var stdout, stderr strings.Builder
	if status := execute(t.Context(), []string{"--version"}, strings.NewReader(""), &stdout, &stderr); status != exitOK {
		t.Fatalf("%d, %s", status, stderr.String())
	}
	if got, want := stdout.String(), "dnstrace version v1.2.3 (commit "+commit+")\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}
