package otlp

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/trace"
)

// Whatever a record says (CoreDNS's come from another process), what is made of it
// can be sent.
func FuzzRecord(f *testing.F) {
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		f.Fatalf("no recorded traces: %v", err)
	}
	for _, path := range files {
		in, err := os.Open(path)
		if err != nil {
			f.Fatal(err)
		}
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			f.Add([]byte(lines.Text()))
		}
		if err := in.Close(); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := trace.Decode(line)
		if err != nil {
			return
		}
		e := newEntry(r, line, time.Time{})
		if _, err := proto.Marshal(e.record()); err != nil {
			t.Errorf("log record: %v", err)
		}
		tr, ok := r.(*trace.Trace)
		if !ok {
			return
		}
		for _, res := range resourceSpans(testIdentity(t), []*trace.Trace{cloneTrace(tr)}) {
			if _, err := proto.Marshal(res); err != nil {
				t.Errorf("spans: %v", err)
			}
			for _, s := range res.GetScopeSpans()[0].GetSpans() {
				if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
					t.Errorf("span %v", s)
				}
			}
		}
	})
}
