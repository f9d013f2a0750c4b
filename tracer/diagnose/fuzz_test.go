package diagnose_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// Whatever a file of records holds, it is assembled and diagnosed without a
// panic, and every finding has a
// code, words, evidence and advice.
func FuzzRecords(f *testing.F) {
	cases, err := filepath.Glob("testdata/*.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range cases {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		a, d := assemble.New(assemble.Config{MaxBytes: 64 << 10}), diagnose.New()
		reader := trace.NewReader(bytes.NewReader(file))
		var traces []*trace.Trace
		for {
			r, _, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				continue
			}
			a.Add(r)
			traces = append(traces, a.Advance(r.Head().Time)...)
		}
		for _, tr := range append(traces, a.Flush()...) {
			for _, f := range d.Trace(tr) {
				if f.Code == "" || f.Summary == "" || len(f.Evidence) == 0 || f.Advice == "" {
					t.Errorf("incomplete finding %+v", f)
				}
			}
		}
		if n := a.Stats().Pending; n != 0 {
			t.Errorf("%d lookups stay for ever", n)
		}
	})
}
