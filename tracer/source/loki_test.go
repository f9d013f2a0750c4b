package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// fakeLoki answers query_range as Loki does (grafana.com/docs/loki, "Query logs
// within a range of time").
type fakeLoki struct {
	entries []lokiEntry
	fail    []int // status codes of the first requests
	queries []string
	tenant  string
}

func (f *fakeLoki) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/loki/api/v1/query_range" {
		http.NotFound(w, r)
		return
	}
	if len(f.fail) > 0 {
		code := f.fail[0]
		f.fail = f.fail[1:]
		http.Error(w, "too busy\nnow", code)
		return
	}
	v := r.URL.Query()
	f.queries = append(f.queries, v.Get("query"))
	f.tenant = r.Header.Get("X-Scope-OrgID")
	wanted := lineFilter(v.Get("query"))
	number := func(name string) int64 { n, _ := strconv.ParseInt(v.Get(name), 10, 64); return n }
	var page [][2]string
	for _, e := range f.entries {
		if at := e.at.UnixNano(); at >= number("start") && at < number("end") && len(page) < int(number("limit")) && wanted(e.line) {
			page = append(page, [2]string{strconv.FormatInt(at, 10), string(e.line)})
		}
	}
	// Two streams, as of two nodes.
	result := []any{}
	for part := range slices.Chunk(page, max((len(page)+1)/2, 1)) {
		result = append(result, map[string]any{"stream": map[string]string{"job": "dnstrace"}, "values": part})
	}
	slices.Reverse(result)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "streams", "result": result}})
}

// lineFilter does what the filter at the end of a query does.
func lineFilter(query string) func([]byte) bool {
	if _, text, ok := strings.Cut(query, "|~ "); ok {
		pattern, _ := strconv.Unquote(text)
		return regexp.MustCompile(pattern).Match
	}
	_, text, _ := strings.Cut(query, "|= ")
	text, _ = strconv.Unquote(text)
	return func(line []byte) bool { return bytes.Contains(line, []byte(text)) }
}

func entriesOf(records ...trace.Record) []lokiEntry {
	var all []lokiEntry
	for _, r := range records {
		all = append(all, lokiEntry{at: r.Head().Time, line: r.AppendJSON(nil)})
	}
	slices.SortStableFunc(all, func(a, b lokiEntry) int { return a.at.Compare(b.at) })
	return all
}

func lokiOf(t *testing.T, f http.Handler) Loki {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return Loki{URL: s.URL, Stderr: t.Output(), Joining: realJoining(), Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
}

func TestLoki(t *testing.T) {
	a, b := lookup(1), lookup(2)
	f := &fakeLoki{entries: entriesOf(a.client, a.server, a.query, a.upstream, traceOf(b.client, nil), b.server, b.query, b.upstream)}
	l := lokiOf(t, f)
	l.Access.Tenant, l.Query = "team", `{app="x"}`
	for _, tc := range []struct {
		name    string
		request Request
		want    string
		query   string
	}{
		{"everything", Request{Since: 2 * time.Hour}, "n1.equ n2.equ", `{app="x"}`},
		{"not so long ago", Request{Since: time.Second}, "", `{app="x"}`},
		{"a name", Request{Since: 2 * time.Hour, Names: func(n string) bool { return n == "n2." }, Text: "n2."}, "n2.equ", `{app="x"} |~ "n2\\.|\"qname\":null"`},
		{"a text that JSON writes otherwise", Request{Since: 2 * time.Hour, Names: func(n string) bool { return n == "n2." }, Text: `n2\.`}, "n1.equ n2.equ", `{app="x"}`},
		{"a trace id", Request{Since: 2 * time.Hour, ID: a.query.TraceID}, "n1.equ", `{app="x"} |~ "n1\\.|\"qname\":null"`},
		{"another trace id", Request{Since: 2 * time.Hour, ID: trace.TraceID{1}}, "", `{app="x"} |= "000000000000000000000000"`},
	} {
		if got := joined(t, l, tc.request); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if got := f.queries[len(f.queries)-1]; got != tc.query || f.tenant != "team" {
			t.Errorf("%s: asked for %s as %s", tc.name, got, f.tenant)
		}
	}
}

func TestLokiPages(t *testing.T) {
	f := &fakeLoki{}
	for i := range 3*pageEntries + 7 {
		// Many lines share a moment, one moment has more than a page.
		at := start.Add(time.Duration(i/10) * time.Millisecond)
		if i > pageEntries && i < 2*pageEntries+500 {
			at = start.Add(time.Duration(pageEntries/10) * time.Millisecond)
		}
		f.entries = append(f.entries, lokiEntry{at: at, line: fmt.Appendf(nil, "line %d", i)})
	}
	slices.SortStableFunc(f.entries, func(a, b lokiEntry) int { return a.at.Compare(b.at) })
	c, err := lokiOf(t, f).client()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]int{}
	if err := c.entries(t.Context(), "{}", start.Add(-time.Hour), start.Add(time.Hour), func(e lokiEntry) error {
		read[string(e.line)]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, e := range f.entries {
		if read[string(e.line)] != 1 {
			t.Fatalf("%s was read %d times", e.line, read[string(e.line)])
		}
	}
}

// A moment with more lines than Loki returns is reported, and skipped.
func TestLokiMomentTooFull(t *testing.T) {
	f := &fakeLoki{}
	for i := range maxEntries + 10 {
		f.entries = append(f.entries, lokiEntry{at: start, line: fmt.Appendf(nil, "line %d", i)})
	}
	f.entries = append(f.entries, lokiEntry{at: start.Add(1), line: []byte("after")})
	l := lokiOf(t, f)
	var stderr bytes.Buffer
	l.Stderr = &stderr
	c, err := l.client()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	if err := c.entries(t.Context(), "{}", start, start.Add(time.Hour), func(e lokiEntry) error { last = string(e.line); return nil }); err != nil || last != "after" {
		t.Errorf("the last line is %q, %v", last, err)
	}
	if want := "more than 5000 lines have the time 2026-11-21T03:00:00Z: some of them are not read"; !strings.Contains(stderr.String(), want) {
		t.Errorf("warned: %s", &stderr)
	}
}

func TestLokiBrokenLine(t *testing.T) {
	f := &fakeLoki{entries: append([]lokiEntry{{at: start, line: []byte("level=info msg=started")}}, entriesOf(lookup(1).client)...)}
	l := lokiOf(t, f)
	var stderr bytes.Buffer
	l.Stderr = &stderr
	if got := joined(t, l, Request{Since: 2 * time.Hour}); got != "n1.e" {
		t.Errorf("got %q", got)
	}
	if want := "the line of 2026-11-21T03:00:00Z: not a dnstrace record: expected a JSON object; skipped"; !strings.Contains(stderr.String(), want) {
		t.Errorf("warned: %s", &stderr)
	}
}

func TestLokiErrors(t *testing.T) {
	answer := func(code int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		})
	}
	for _, tc := range []struct {
		name    string
		handler http.Handler
		url     string
		want    string
	}{
		{"no URL", nil, "loki:3100", "--loki: expected a URL such as http://loki:3100"},
		{"nobody there", nil, "http://127.0.0.1:1", "is Loki at http://127.0.0.1:1, and can this machine reach it?; tried 4 times"},
		{"something else", answer(200, "<html>"), "", "the answer is not Loki's"},
		{"a metric query", answer(200, `{"data":{"resultType":"matrix","result":[]}}`), "", "--loki-query: it gives a matrix, expected log lines"},
		{"a wrong query", answer(400, "parse error"), "", "400 Bad Request: parse error; the query was {job=\"dnstrace\"}: --loki-query takes"},
		{"no tenant", answer(401, "no org id"), "", "401 Unauthorized: no org id; LOKI_USERNAME and LOKI_PASSWORD"},
		{"a path", answer(404, ""), "", "--loki takes the address of Loki itself"},
		{"overloaded", answer(429, "too many"), "", "429 Too Many Requests: too many; a shorter --since or --window asks for less; tried 4 times"},
		{"a strange line", answer(200, `{"data":{"resultType":"streams","result":[{"values":[["x","y"]]}]}}`), "", "reading the time of a line"},
	} {
		l := lokiOf(t, tc.handler)
		if tc.url != "" {
			l.URL = tc.url
		}
		_, err := l.Each(t.Context(), Request{}, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "query_range") {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestLokiTriesAgain(t *testing.T) {
	l := lokiOf(t, &fakeLoki{entries: entriesOf(lookup(1).client), fail: []int{503, 429, 500}})
	if got := joined(t, l, Request{Since: 2 * time.Hour}); got != "n1.e" {
		t.Errorf("got %q", got)
	}
}

// Following shows what comes, late lines too, each once, until it is stopped.
func TestLokiFollow(t *testing.T) {
	a, b := lookup(1), lookup(2)
	all := entriesOf(a.client, a.server, a.query, a.upstream, b.client, b.server, b.query)
	f := &fakeLoki{entries: all[:1:1]}
	l := lokiOf(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	polls, now := 0, start.Add(3*time.Second)
	l.Now = func() time.Time { return now }
	l.Wait = func(ctx context.Context, d time.Duration) error {
		switch polls++; polls {
		case 2:
			f.entries = all
		case 3:
			// Loki goes away for longer than a request is tried.
			f.fail = []int{503, 503, 503, 503, 503}
		}
		if polls > 60 {
			cancel()
		}
		now = now.Add(d)
		return ctx.Err()
	}
	var got []string
	_, err := l.Each(ctx, Request{Follow: true, Since: time.Minute}, func(l Lookup) error {
		got = append(got, fmt.Sprintf("%s %v %d", l.Trace.QName, l.Trace.Query != nil, len(l.Trace.Upstreams)))
		return nil
	})
	if want := []string{"n1. true 1", "n2. true 1"}; !slices.Equal(got, want) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func FuzzParsePage(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"streams","result":[{"stream":{},"values":[["1","a"],["0","b",{"x":"y"}]]}]}}`))
	f.Add([]byte(`{"data":{"resultType":"streams","result":[{"values":[[]]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		page, err := parsePage(bytes.NewReader(b), pageEntries)
		if err == nil && !slices.IsSortedFunc(page, func(a, b lokiEntry) int { return a.at.Compare(b.at) }) {
			t.Errorf("not in order: %v", page)
		}
	})
}
