package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/history"
	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/top"
)

// golden compares with a file that people read; DNSTRACE_UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

func TestTopOnce(t *testing.T) {
	in, err := os.ReadFile(records(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"top.txt":        nil,
		"top-window.txt": {"--window", "1500ms", "--sort", "max", "--reverse"},
		"top-filter.txt": {"-f", `qname == "example.org."`},
		"top-rows.jsonl": {"-o", "rows"},
	} {
		status, out, _ := call(t, string(in), append([]string{"top", "--once", "--from", "-"}, args...)...)
		if status != exitOK {
			t.Errorf("%s: status %d", name, status)
		}
		golden(t, name, out)
	}
}

// json is the records themselves, as everywhere.
func TestTopJSON(t *testing.T) {
	path := records(t)
	_, watched, _ := call(t, "", "watch", "--from", path, "-o", "json")
	status, out, _ := call(t, "", "top", "--from", path, "-o", "json")
	if status != exitOK || out != watched || strings.Count(out, "\n") != 3 {
		t.Errorf("status %d, got:\n%s\nwant:\n%s", status, out, watched)
	}
}

func TestTopOfTheTracer(t *testing.T) {
	h := history.New(history.Config{Keep: time.Hour, MaxBytes: 1 << 20})
	e, _ := recorded(1, "api.example.com.")
	for _, age := range []time.Duration{time.Second, time.Hour} {
		tr := &trace.Trace{Header: e.Header, QName: e.QName, RCode: "NOERROR", Duration: e.Duration, Exchange: e, Outcome: e.Outcome}
		tr.Time = time.Now().Add(-age)
		h.Add(tr.Time, history.Lookup{Line: tr.AppendJSON(nil)})
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, api.NewHandler(api.Config{History: h})) }()
	status, out, stderr := call(t, "", "top", "--api", socket)
	if status != exitOK || !strings.Contains(out, "1 lookup ") || !strings.Contains(out, "10.244.0.4") {
		t.Errorf("status %d: %s%s", status, out, stderr)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestParseKeys(t *testing.T) {
	for in, want := range map[string][]key{
		"q": {keyQuit}, "\x03": {keyQuit}, "<>": {keyLeft, keyRight}, "\x1b[C\x1b[D": {keyRight, keyLeft}, "\x1bOC": {keyRight},
		"r x": {keyReverse, keyHold}, "\x1b": nil, "\x1b[A": nil,
	} {
		if got := parseKeys([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// lookAt runs a board on a screen that is no real one, with these keys pressed,
// and returns what was drawn.
func lookAt(t *testing.T, b *board, reading <-chan error, pressed ...key) (string, error) {
	t.Helper()
	var out bytes.Buffer
	keys := make(chan key, len(pressed))
	for _, k := range pressed {
		keys <- k
	}
	s := &screen{out: &out, keys: keys, size: func() (int, int) { return 80, 24 }, restore: func() error { return nil }}
	err := b.run(t.Context(), s, reading)
	err = errors.Join(err, s.Close())
	return out.String(), err
}

func TestBoard(t *testing.T) {
	n := uint64(0)
	b := &board{
		options: render.TopOptions{Sort: top.ByTimeouts}, message: func() string { return "dnstrace: 3 lookups are not shown" },
		view: func() top.View {
			n++
			return top.View{Total: top.Total{Lookups: n}, Clients: []top.Client{{Client: "demo/mypod", Lookups: n}}}
		},
	}
	out, err := lookAt(t, b, nil, keyRight, keyReverse, keyHold, keyNone, keyHold, keyQuit)
	if err != nil {
		t.Fatal(err)
	}
	pictures := strings.Split(out, toHome)[1:]
	for i, want := range []string{"1 lookup · 0 timeouts · 0 with a diagnosis · by timeouts", "by failed", "by failed, reversed", "4 lookups", "4 lookups", "5 lookups"} {
		if i >= len(pictures) || !strings.Contains(pictures[i], want) {
			t.Errorf("picture %d has no %q: %q", i, want, pictures[i])
		}
	}
	if !strings.Contains(pictures[3], "HELD") || strings.Contains(pictures[5], "HELD") || !strings.Contains(pictures[0], "3 lookups are not shown") {
		t.Errorf("footers: %q", pictures)
	}
	if !strings.HasSuffix(out, leaveScreen) {
		t.Error("the terminal is not given back")
	}
	golden(t, "screen.txt", pictures[0])
}

// An error of the source ends the board, its end does not.
func TestBoardWhenReadingEnds(t *testing.T) {
	b := &board{view: func() top.View { return top.View{} }, message: func() string { return "" }}
	failed := make(chan error, 1)
	failed <- errors.New("gone")
	if _, err := lookAt(t, b, failed); err == nil || err.Error() != "gone" {
		t.Errorf("error %v", err)
	}
	ended := make(chan error, 1)
	ended <- nil
	out, err := lookAt(t, b, ended, keyNone, keyNone, keyNone, keyNone, keyNone, keyNone, keyNone, keyNone, keyQuit)
	if err != nil || !strings.Contains(out, "q quit") {
		t.Errorf("%v: %q", err, out)
	}
}

func TestLastMessage(t *testing.T) {
	m := &lastMessage{}
	for _, s := range []string{"one\n", "two\nthree\n"} {
		if _, err := m.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if m.String() != "three" {
		t.Errorf("%q", m)
	}
}
