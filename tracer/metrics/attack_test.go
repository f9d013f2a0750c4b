package metrics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dnstrace/dnstrace/trace"
)

// served returns the address of an endpoint whose idle connections end after a while.
func served(t *testing.T, idle time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, sample(), NewLookups(Options{}), idle) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A connection on which nothing is asked any more ends.
func TestIdleConnectionEnds(t *testing.T) {
	c := dial(t, served(t, 50*time.Millisecond))
	fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("it goes on: %v", err)
	}
}

// Any number of connections, which say nothing or half of a request, take no more than
// a few, and Prometheus is answered beside them.
func TestManyConnections(t *testing.T) {
	addr := served(t, idleWithin)
	before := runtime.NumGoroutine()
	const many = 300
	for i := range many {
		c := dial(t, addr)
		if i%2 == 0 {
			fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost:")
		}
	}
	client := http.Client{Timeout: 10 * time.Second} // as Prometheus has it
	for range 3 {
		resp, err := client.Get("http://" + addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), "dnstrace_events_total 18") {
			t.Errorf("%v: %.100s", err, body)
		}
	}
	var n int
	for range 100 { // those that were closed take a moment to end
		if n = runtime.NumGoroutine() - before; n <= 2*maxConns {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d goroutines for %d connections", n, many)
}

// A header without end is not read to its end.
func TestLongHeader(t *testing.T) {
	c := dial(t, served(t, idleWithin))
	fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ")
	block := strings.Repeat("x", 1<<10)
	for range 1 << 10 {
		if _, err := io.WriteString(c, block); err != nil {
			return // it hung up
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return // it hung up
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", resp.Status)
	}
}

// Texts that others choose, of pods, of upstreams, of drops, make neither the scrape fail
// nor a line of their own in it, nor a label without end.
func TestHostileLabels(t *testing.T) {
	l := NewLookups(Options{Clients: true})
	for _, text := range []string{
		"\xff\xfe", "a\" } 1\n# TYPE forged counter\nforged 1\n", "\x1b[2J\u202e", strings.Repeat("long", 50_000), "",
	} {
		tr := failover()
		tr.Client = &trace.Endpoint{Namespace: text, Pod: text}
		tr.RCode, tr.Outcome, tr.Query.Cache = text, text, text
		tr.Exchange.Drops = []trace.Drop{{Message: text, Reason: text}}
		tr.Upstreams[0].Attempt.Address, tr.Upstreams[0].Attempt.Outcome = text, text
		l.Observe(tr)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(newRegistry(sample(), l), promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(body, `namespace="a\" } 1\n# TYPE`) || len(body) > 200_000 {
		t.Errorf("%d, %d bytes: %.300s", w.Code, len(body), body)
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "forged") || strings.HasPrefix(line, "# TYPE forged") || len(line) > 8*maxLabel {
			t.Errorf("%.200q", line)
		}
	}
}
