package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/history"
	"github.com/dnstrace/dnstrace/tracer/origin"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func numbered(n int) []byte {
	t := &trace.Trace{Header: trace.Header{Time: start}, QName: fmt.Sprintf("n%03d.", n)}
	return t.AppendJSON(nil)
}

// serve starts an API with five traces in memory, one a second before start.
func serve(t *testing.T) (*history.History, *Client, context.CancelFunc) {
	t.Helper()
	h := history.New(history.Config{Keep: time.Hour, MaxBytes: 1 << 20})
	for i := range 5 {
		h.Add(start.Add(time.Duration(i-5)*time.Second), history.Lookup{Line: numbered(i)})
	}
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	handler := NewHandler(Config{
		Version: "v1", Started: start.Add(-time.Minute), History: h, Now: func() time.Time { return start },
		Counters: func() map[string]uint64 { return map[string]uint64{"lost_events": 3} },
		Messages: func(client netip.AddrPort, id uint16) []Message {
			if client.String() != "[fd00::4]:50202" || id != 49569 {
				return nil
			}
			return []Message{{Time: start, Response: true, Size: 90, Wire: []byte{1, 2, 3}}}
		},
	})
	go func() { done <- Serve(ctx, l, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h, NewClient(path), cancel
}

func name(line []byte) string {
	_, rest, _ := strings.Cut(string(line), `"qname":"n`)
	return rest[:3]
}

func anyReach(history.Reach) {}

// Every answer says how far back it goes: to the start, then to what was evicted, and less
// for a client that had more than its share.
func TestReach(t *testing.T) {
	h, c, stop := serve(t)
	ask := func(q Query) history.Reach {
		t.Helper()
		var got []history.Reach
		err := c.Traces(t.Context(), q, func(r history.Reach) { got = append(got, r) }, func([]byte) error { return nil }, func(uint64) {})
		if err != nil && !(q.Follow && errors.Is(err, ErrEnded)) || len(got) != 1 {
			t.Fatalf("%+v: reported %d times, %v", q, len(got), err)
		}
		return got[0]
	}
	started := start.Add(-time.Minute)
	if r := ask(Query{Since: time.Hour}); !r.Ordinary.Equal(started) || !r.Notable.Equal(started) {
		t.Errorf("nothing was evicted: %+v", r)
	}
	noisy := origin.Client{Name: "noisy"}
	h.Expire(start.Add(2 * time.Hour))
	h.Add(start.Add(2*time.Hour), history.Lookup{Line: numbered(8), Client: origin.Client{Name: "quiet"}, Label: "demo/quiet"})
	random := rand.New(rand.NewPCG(1, 2))
	for range 5_000 { // of what cannot be compressed: several times the memory
		line := make([]byte, 1000)
		for i := range line {
			line[i] = byte(random.Uint32())
		}
		h.Add(start.Add(3*time.Hour), history.Lookup{Line: line, Client: noisy, Label: "demo/noisy"})
	}
	r := ask(Query{})
	if want := start.Add(2 * time.Hour); !r.Ordinary.Equal(want) || !r.Notable.Equal(want) || len(r.Clients) != 1 || r.Clients[0].Client != "demo/noisy" || !r.Clients[0].Ordinary.Equal(start.Add(3*time.Hour)) {
		t.Errorf("%+v", r)
	}
	s, err := c.Status(t.Context())
	if err != nil || !reflect.DeepEqual(s.Reach, r) {
		t.Errorf("status: %+v, %v", s.Reach, err)
	}
	time.AfterFunc(50*time.Millisecond, stop)
	if followed := ask(Query{Follow: true}); !reflect.DeepEqual(followed, r) {
		t.Errorf("following: %+v", followed)
	}
}

func TestTraces(t *testing.T) {
	_, c, _ := serve(t)
	for _, tc := range []struct {
		query Query
		want  string
	}{
		{Query{}, "004 003 002 001 000"},
		{Query{Limit: 2}, "004 003"},
		{Query{Since: 2 * time.Second}, "004 003"},
	} {
		var got []string
		err := c.Traces(t.Context(), tc.query, anyReach, func(line []byte) error {
			got = append(got, name(line))
			return nil
		}, func(uint64) {})
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %q, %v", tc.query, got, err)
		}
	}
}

func TestFollow(t *testing.T) {
	h, c, stop := serve(t)
	var got []string
	err := c.Traces(t.Context(), Query{Follow: true, Since: 2 * time.Second}, anyReach, func(line []byte) error {
		got = append(got, name(line))
		switch len(got) {
		case 2:
			h.Add(start, history.Lookup{Line: numbered(5)})
		case 3:
			stop()
		}
		return nil
	}, func(uint64) {})
	if want := "003 004 005"; strings.Join(got, " ") != want || !errors.Is(err, ErrEnded) {
		t.Errorf("got %q, %v; want %q, and to hear that the tracer stopped", got, err, want)
	}
}

func TestFollowTellsWhatWasLost(t *testing.T) {
	h, c, _ := serve(t)
	var lost uint64
	seen := 0
	enough := errors.New("enough")
	err := c.Traces(t.Context(), Query{Follow: true, Since: time.Second}, anyReach, func([]byte) error {
		if lost > 0 {
			return enough
		}
		if seen++; seen > 1 {
			return nil
		}
		// More than the queue and all socket buffers hold.
		for i := range 2 * followQueue {
			h.Add(start, history.Lookup{Line: numbered(i % 1000)})
		}
		return nil
	}, func(n uint64) { lost += n })
	if !errors.Is(err, enough) || lost == 0 {
		t.Errorf("lost %d, %v", lost, err)
	}
}

func TestStatus(t *testing.T) {
	_, c, _ := serve(t)
	s, err := c.Status(t.Context())
	if err != nil || s.Version != "v1" || s.Uptime != 60 || s.Counters["lost_events"] != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestMessages(t *testing.T) {
	_, c, _ := serve(t)
	found, err := c.Messages(context.Background(), netip.MustParseAddrPort("[fd00::4]:50202"), 49569)
	if err != nil || len(found) != 1 || !found[0].Time.Equal(start) || !found[0].Response || found[0].Size != 90 || string(found[0].Wire) != "\x01\x02\x03" {
		t.Errorf("%+v %v", found, err)
	}
	if found, err = c.Messages(context.Background(), netip.MustParseAddrPort("10.0.0.1:1"), 1); err != nil || len(found) != 0 {
		t.Errorf("of another: %+v %v", found, err)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a live socket: %v", err)
	}
	// As if the process had died: the file stays, nobody listens.
	if err := l.current.Load().Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "api.sock")
	_, err := NewClient(missing).Status(t.Context())
	want := "is `dnstrace run` running on this node? expected its API at " + missing + "; use --api, or --from FILE"
	if err == nil || err.Error() != want {
		t.Errorf("no socket: %v", err)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{syscall.ECONNREFUSED, "is `dnstrace run` running"},
		{fs.ErrPermission, "permission denied on /x: it belongs to"},
		{context.Canceled, "context canceled"},
		{errors.New("odd"), "the tracer at /x: odd"},
	} {
		if err := NewClient("/x").dialError(tc.err); !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v", tc.err, err)
		}
	}
}

func TestBadParameters(t *testing.T) {
	_, c, _ := serve(t)
	for query, want := range map[string]string{
		"since=yesterday": `since: expected a duration such as 5m, got "yesterday"`,
		"since=-5m":       "since: expected a duration",
		"limit=-1":        "limit: expected a number from 0",
		"follow=maybe":    "follow: expected true or false",
		"sinc=5m":         "sinc: unknown parameter",
	} {
		_, err := c.get(t.Context(), "/v1/traces?"+query)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", query, err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://dnstrace/v1/traces", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("since=5m&limit=10&follow=true")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q, err := parseQuery(v)
		if err != nil {
			return
		}
		again, err := parseQuery(q.values())
		if err != nil || again != q {
			t.Errorf("%q: %+v reads again as %+v, %v", raw, q, again, err)
		}
	})
}

// Somebody removes the socket: who is connected goes on, and who comes finds it again.
func TestSocketRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, kept := make(chan error, 1), make(chan string, 1)
	go func() { served <- Serve(ctx, l, NewHandler(Config{})) }()
	go l.Run(ctx, func(what string) { kept <- what })
	before := NewClient(path)
	if err := before.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if what := <-kept; !strings.Contains(what, "made again") {
		t.Errorf("reported %q", what)
	}
	if err := errors.Join(before.Ready(ctx), NewClient(path).Ready(ctx)); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
