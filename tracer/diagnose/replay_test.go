package diagnose_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// Every recorded case, exchanges and query records of a real fault in the lab,
// replays to the same diagnosis. DNSTRACE_UPDATE=1 rewrites what is expected:
// read the difference before you commit it.
func TestRecordedCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no recorded cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".jsonl"), func(t *testing.T) {
			got := replay(t, path)
			golden := strings.TrimSuffix(path, ".jsonl") + ".golden"
			if os.Getenv("DNSTRACE_UPDATE") != "" {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s; got:\n%s", golden, got)
			}
		})
	}
}

func replay(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := assemble.New(assemble.Config{})
	reader := trace.NewReader(f)
	for {
		r, _, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		a.Add(r)
	}
	var out bytes.Buffer
	for _, tr := range a.Flush() {
		fmt.Fprintf(&out, "%s %s: %s, %d upstreams\n", tr.QName, tr.QType, tr.Outcome, len(tr.Upstreams))
		for _, u := range tr.Upstreams {
			fmt.Fprintf(&out, "  upstream: join %s, attempt %t, exchange %t\n", u.Join, u.Attempt != nil, u.Exchange != nil)
		}
		for _, g := range tr.Gaps {
			fmt.Fprintf(&out, "  gap: %s\n", g)
		}
		for _, f := range diagnose.Trace(tr) {
			fmt.Fprintf(&out, "  %s: %s\n", f.Code, f.Summary)
			for _, e := range f.Evidence {
				fmt.Fprintf(&out, "    - %s\n", e)
			}
		}
	}
	return out.Bytes()
}
