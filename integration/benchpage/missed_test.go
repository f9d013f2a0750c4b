package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const table = "## CPU\n\n`make bench-tracer BENCHFLAGS='-only cpu'`\n\n" +
	"| | | min – median – max, rounds: 1 | unit | goal |\n|---|---|---|---|---|\n" +
	"| CPU a lookup | off | 1 – 1 – 1 | µs |  |\n" +
	"|  | dnstrace, 1/s | 9 – 9 – 9 | µs | ≤ 1 missed |\n" +
	"|  | dnstrace, 2/s | 9 – 9 – 9 | µs | ≤ 1 missed |\n" +
	"| lost packets | dnstrace | 0 – 0 – 0 | packets | ≤ 0 reached |\n"

func TestUnexplained(t *testing.T) {
	for _, tc := range []struct {
		words string
		want  []string
	}{
		{"", []string{"* **cpu, CPU a lookup**:"}},
		{"* **cpu, CPU a lookup**:\n", []string{"* **cpu, CPU a lookup**:"}},
		{"* **latency, CPU a lookup**: of another part\n", []string{"* **cpu, CPU a lookup**:"}},
		{"* **cpu, CPU a lookup**: since\n", nil},
	} {
		if got := unexplained(tc.words + table); !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.words, got, tc.want)
		}
	}
}

// The page that is there says why it misses what it misses, in the words that the next
// one will have, too.
func TestPageExplains(t *testing.T) {
	page, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(page), words) {
		t.Error("docs/benchmarks.md does not begin with words.md: `go run ./integration/benchpage bin/benchmarks.jsonl` writes it anew")
	}
	if rows := unexplained(string(page)); len(rows) > 0 {
		t.Errorf("missed without a cause:\n%s", strings.Join(rows, "\n"))
	}
}
