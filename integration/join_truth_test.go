package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Fifty clients ask one name at once, and fifty more a little apart, several times.
// CoreDNS stamps its queries, which says whose each of them is; then the stamps are
// taken out of the records, and these joined by what is left. What is then joined
// as exact is what the stamp had said, without one exception.
func TestJoinAmongFiftyIsTrue(t *testing.T) {
	const clients, rounds = 50, 3
	r := newFaultRig(t, func(l *lab.Lab) string {
		return fmt.Sprintf(". {\n dnstrace {\n output unix %s\n output file %s\n stamp all\n }\n forward . %s\n}\n",
			l.RecordSocket(), pluginRecords(l), l.Upstream(0).V4())
	})
	r.Upstream(0).Set("same.test.", lab.Behaviour{Delay: 5 * time.Millisecond})
	for range rounds {
		for _, rate := range []float64{1e6, 400, 100} {
			for _, res := range r.Client("client-a").Bulk(t.Context(), lab.Bulk{Count: clients, Rate: rate, Query: func(int) lab.Query {
				return lab.Query{Name: "same.test."}
			}}) {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
		}
	}
	const lookups = clients * rounds * 3
	r.settled("same.test", lookups)
	file, truth := r.withoutStamps(t)
	if len(truth) < lookups*9/10 {
		t.Fatalf("%d stamped queries of %d lookups\n%s", len(truth), lookups, r.Outputs())
	}
	out, err := r.Dnstrace(t.Context(), "explain", "--all", "-o", "json", "--from", file, "same.test")
	if err != nil {
		t.Fatal(err)
	}
	right, apart := 0, 0
	for _, rec := range readRecords(t, writeFile(t, out)) {
		tr := rec.(*trace.Trace)
		for _, u := range tr.Upstreams {
			switch {
			case u.Exchange == nil || u.Join != trace.JoinExact:
				apart++
			case truth[u.Exchange.Flow] != tr.Flow:
				t.Errorf("%s is joined as exact with the upstream query of %s", tr.Flow, truth[u.Exchange.Flow])
			default:
				right++
			}
		}
	}
	t.Logf("%d lookups: %d joined exactly and right, %d not exactly", lookups, right, apart)
	if right == 0 || apart == 0 {
		t.Errorf("%d are joined exactly, %d are not: this proves nothing", right, apart)
	}
}

// withoutStamps writes the records of what was observed to a file, without what the
// stamps say, and returns that: whose lookup each upstream exchange is of.
func (r *faultRig) withoutStamps(t *testing.T) (path string, truth map[trace.Flow]trace.Flow) {
	t.Helper()
	const prefix, digits = len("00-"), 32
	truth = map[trace.Flow]trace.Flow{}
	var lines []byte
	for _, rec := range append(readRecords(t, r.RecordFile()), readRecords(t, pluginRecords(r.Lab))...) {
		switch rec := rec.(type) {
		case *trace.Trace:
			continue
		case *trace.Query:
			rec.Stamped = false
		case *trace.Exchange:
			if len(rec.Traceparent) >= prefix+digits {
				id, err := trace.ParseTraceID(rec.Traceparent[prefix : prefix+digits])
				if err != nil {
					t.Fatal(err)
				}
				truth[rec.Flow] = trace.Flow(id[len(id)-len(trace.Flow{}):])
				rec.Traceparent = ""
			}
		}
		lines = append(rec.AppendJSON(lines), '\n')
	}
	return writeFile(t, string(lines)), truth
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "records.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
