//go:build loki

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// ship sends records to Loki as an agent on a node would.
func ship(t *testing.T, url, node string, records []trace.Record) {
	t.Helper()
	var values [][2]string
	for _, r := range records {
		values = append(values, [2]string{strconv.FormatInt(r.Head().Time.UnixNano(), 10), string(r.AppendJSON(nil))})
	}
	body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{
		"stream": map[string]string{"job": "dnstrace", "node": node}, "values": values}}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(url+"/loki/api/v1/push", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%s: %s", node, resp.Status)
	}
}

// shipped makes lookups on a node whose tracer and whose CoreDNS write records
// that never meet but in Loki, and returns them.
func shipped(t *testing.T, url string, r *rig, names ...string) {
	t.Helper()
	served := filepath.Join(r.Dir(), "coredns.jsonl")
	if _, err := r.StartCoreDNS(corefile(r.Lab, "dnstrace {\n output file "+served+"\n}")); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		r.answered(lab.Query{Name: name})
	}
	// A tracer sees the whole machine, and with it what else runs there.
	ours := func(path string) []trace.Record {
		return slices.DeleteFunc(readRecords(t, path), func(r trace.Record) bool {
			switch r := r.(type) {
			case *trace.Exchange:
				return !slices.Contains(names, r.QName)
			case *trace.Query:
				return !slices.Contains(names, r.QName)
			}
			return true
		})
	}
	complete := func() bool { return len(ours(r.RecordFile())) == 2*len(names) && len(ours(served)) == len(names) }
	for end := time.Now().Add(patience); !complete(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not every record came\n%s", r.Outputs())
		}
	}
	ship(t, url, "tracer", ours(r.RecordFile()))
	ship(t, url, "server", ours(served))
}

// What two observers wrote becomes one trace when it is read from Loki, however
// it is asked for.
func TestLoki(t *testing.T) {
	r := tracerOnly(t, "--record", "exchange")
	url := startLoki(t, r.Lab)
	names := []string{"one.loki.test.", "two.loki.test.", "three.loki.test."}
	shipped(t, url, r, names...)
	ctx := context.Background()
	read := func(args ...string) string {
		t.Helper()
		out, err := r.Dnstrace(ctx, append(args, "--loki", url)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := read("explain", "two.loki.test", "-o", "json", "--since", "10m")
	rec, err := trace.Decode([]byte(strings.TrimSpace(out)))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tr := rec.(*trace.Trace)
	if tr.Exchange == nil || tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil || tr.Upstreams[0].Join != trace.JoinExact {
		t.Errorf("not all of it is joined: %s", out)
	}
	again := read("explain", tr.TraceID.String(), "-o", "json")
	if again != out {
		t.Errorf("by its id:\n%s\nby its name:\n%s", again, out)
	}
	wantAll(t, read("explain", "*.loki.test", "--all"), append([]string{"COREDNS cache miss", "UPSTREAM 1"}, names...)...)
	wantAll(t, read("top", "--once", "--window", "10m"), "3 lookups", "0 timeouts", r.Host("client-a").V4.String(), r.Upstream(0).V4().String())
}

// watch shows what comes to Loki while it watches.
func TestLokiWatch(t *testing.T) {
	r := tracerOnly(t, "--record", "exchange")
	url := startLoki(t, r.Lab)
	path, err := filepath.Abs(filepath.Join("..", "bin", "dnstrace"))
	if err != nil {
		t.Fatal(err)
	}
	watch, err := r.Start(lab.Spec{Name: "watch", Path: path, Args: []string{"watch", "--loki", url, "--columns", "name,upstream,result"}})
	if err != nil {
		t.Fatal(err)
	}
	shipped(t, url, r, "live.loki.test.")
	for end := time.Now().Add(patience); !strings.Contains(watch.Stdout(), "live.loki.test."); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is shown: %s%s", watch.Stdout(), watch.Stderr())
		}
	}
	wantAll(t, watch.Stdout(), r.Upstream(0).V4().String(), "NOERROR")
	if n := strings.Count(watch.Stdout(), "live.loki.test."); n != 1 {
		t.Errorf("shown %d times:\n%s", n, watch.Stdout())
	}
}
