//go:build otlp

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/spanstore"
)

// gate stands before a collector and is closed at times.
type gate struct {
	open  http.Handler
	state atomic.Int32
}

// States of a gate.
const (
	gateOpen int32 = iota
	gateRefuses
	gateSilent
	gateSlow
	gateFull
	gateGone
)

// slowness of a gate is just below the tracer's patience with a request.
const slowness = 900 * time.Millisecond

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch g.state.Load() {
	case gateRefuses:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
	case gateSilent:
		// The server sees that the client has gone only when its request is read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	case gateFull:
		// As Loki and others do where they have no room left.
		http.Error(w, "no space left on device", http.StatusInternalServerError)
	case gateGone:
		panic(http.ErrAbortHandler) // the connection ends without an answer
	case gateSlow:
		time.Sleep(slowness)
		g.open.ServeHTTP(w, r)
	default:
		g.open.ServeHTTP(w, r)
	}
}

// storm is more lookups than the queue of an output holds, at some eight kilobytes
// a trace.
const storm = 2500

// A collector, or Loki, that is down, refuses, is full, slow or does not answer holds up no lookup, no record
// in a file and no other receiver. What it misses is counted, and `check` says so; when
// it is back, what waited is delivered.
func TestOTLPTrouble(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	jaeger := spanstore.StartJaeger(t, r.Lab)
	loki := startLoki(t, r.Lab)
	// Without Loki: only spans are sent here.
	collector := startOTLPCollector(t, r.Lab, jaeger.OTLP, "http://127.0.0.1:1")
	target, err := url.Parse(collector.http)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{open: httputil.NewSingleHostReverseProxy(target)}
	gated := httptest.NewServer(g)
	defer gated.Close()
	if target, err = url.Parse(loki); err != nil {
		t.Fatal(err)
	}
	lokiGate := &gate{open: httputil.NewSingleHostReverseProxy(target)}
	lokiGated := httptest.NewServer(lokiGate)
	defer lokiGated.Close()
	both := func(state int32) { g.state.Store(state); lokiGate.state.Store(state) }
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
	metrics := fmt.Sprintf("127.0.0.1:%d", lab.FreePorts(t, 1)[0])
	direct, throughGate, toLoki := "otlp:"+collector.http+"/v1/traces", "otlp:"+gated.URL+"/v1/traces", "otlp:"+lokiGated.URL+"/otlp/v1/logs"
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--record", "trace", "--metrics", metrics, "-f", `qname endsWith ".trouble.test."`,
		"--output", direct, "--output", throughGate, "--output", toLoki)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, tc := range []struct {
		name         string
		begin, end   func()
		hurt, unhurt []string
	}{
		{"down", func() { must(collector.Stop()); lokiGate.state.Store(gateGone) }, func() { must(collector.Start()); both(gateOpen) }, []string{direct, throughGate, toLoki}, nil},
		{"refusing", func() { g.state.Store(gateRefuses) }, func() { both(gateOpen) }, []string{throughGate}, []string{direct}},
		{"slow", func() { both(gateSlow) }, func() { both(gateOpen) }, []string{throughGate, toLoki}, []string{direct}},
		{"silent", func() { both(gateSilent) }, func() { both(gateOpen) }, []string{throughGate, toLoki}, []string{direct}},
		// Last: it leaves nothing behind whose delivery would tell that all is well again.
		{"full", func() { both(gateFull) }, func() { both(gateOpen) }, []string{throughGate, toLoki}, []string{direct}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := outputs(t, metrics)
			tc.begin()
			for i, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: storm, Rate: 1000, Query: func(i int) lab.Query {
				return lab.Query{Name: fmt.Sprintf("%s-%d.trouble.test.", tc.name, i)}
			}}) {
				if res.Err != nil {
					t.Errorf("lookup %d: %v", i, res.Err)
				}
			}
			total += storm
			file := "file:" + r.RecordFile()
			waitOutputs(t, metrics, "the file has every record", func(o map[string]counts) bool { return o[file].written >= total })
			during := outputs(t, metrics)
			for _, name := range tc.hurt {
				if during[name].dropped == before[name].dropped {
					t.Errorf("%s: nothing was dropped", name)
				}
				wantAll(t, r.check(), "limited  lost records not written", " by "+name)
			}
			tc.end()
			after := waitOutputs(t, metrics, "every record is delivered or dropped", func(o map[string]counts) bool {
				return o[direct].sum() == o[file].written && o[throughGate].sum() == o[file].written && o[toLoki].sum() == o[file].written
			})
			for _, name := range tc.hurt {
				// What is refused for good does not wait.
				if tc.name != "full" && after[name].written == before[name].written {
					t.Errorf("%s: nothing of what waited was delivered", name)
				}
				t.Logf("%s: of %d, %d delivered and %d dropped", name, storm, after[name].written-before[name].written, after[name].dropped-before[name].dropped)
			}
			for _, name := range tc.unhurt {
				if after[name].dropped != before[name].dropped {
					t.Errorf("%s: %d dropped, though it was not concerned", name, after[name].dropped-before[name].dropped)
				}
			}
		})
	}
	must(collector.Stop())
	r.answered(lab.Query{Name: "last.trouble.test."})
	if err := tracer.Stop(); err != nil || tracer.ExitCode() != 0 {
		t.Errorf("exit %d, %v", tracer.ExitCode(), err)
	}
	wantAll(t, tracer.Stderr(), throughGate+": ", "429 Too Many Requests: too many requests", "connection refused", "no answer within 1s", "delivers again after",
		"records were not delivered at the end: Post ")
}

// check returns what `dnstrace check` says; it fails where this machine lacks
// something for a tracer of its own.
func (r *rig) check() string {
	r.t.Helper()
	out, err := r.Dnstrace(context.Background(), "check", "--api", r.APISocket(), "--kubernetes", "off")
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// Loki itself, with a limit that a busy node is beyond: it refuses with 429, nothing is
// held up, and what it did not take is counted and said.
func TestOTLPLokiRefuses(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	loki := startLoki(t, r.Lab, "-distributor.ingestion-rate-limit-mb=0.01", "-distributor.ingestion-burst-size-mb=0.05")
	metrics := fmt.Sprintf("127.0.0.1:%d", lab.FreePorts(t, 1)[0])
	out := "otlp:" + loki + "/otlp/v1/logs"
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--record", "trace", "--metrics", metrics, "--output", out)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	// On a busy machine records are smaller, and more of them wait.
	total := 0
	for end := time.Now().Add(patience); outputs(t, metrics)[out].dropped == 0 && time.Now().Before(end); total += storm {
		for i, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: storm, Rate: 1000, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("refused-%d.trouble.test.", total+i)}
		}}) {
			if res.Err != nil {
				t.Errorf("lookup %d: %v", total+i, res.Err)
			}
		}
	}
	waitOutputs(t, metrics, "the file has every record, and Loki's misses are counted", func(o map[string]counts) bool {
		return o["file:"+r.RecordFile()].written >= total && o[out].dropped > 0
	})
	wantAll(t, r.check(), "limited  lost records not written", " by "+out)
	if err := tracer.Stop(); err != nil || tracer.ExitCode() != 0 {
		t.Errorf("exit %d, %v", tracer.ExitCode(), err)
	}
	wantAll(t, tracer.Stderr(), out+": ", "429 Too Many Requests", "ingestion rate limit")
}

// counts are what the metrics say of an output.
type counts struct{ written, dropped int }

func (c counts) sum() int { return c.written + c.dropped }

// outputs reads the tracer's metrics.
func outputs(t *testing.T, addr string) map[string]counts {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all := map[string]counts{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), `{output="`)
		if !ok {
			continue
		}
		output, value, ok := strings.Cut(rest, `"} `)
		n, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			t.Fatalf("not understood: %s (%v)", lines.Text(), err)
		}
		c := all[output]
		switch name {
		case "dnstrace_output_records_total":
			c.written = int(n)
		case "dnstrace_output_records_dropped_total":
			c.dropped = int(n)
		}
		all[output] = c
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func waitOutputs(t *testing.T, addr, what string, is func(map[string]counts) bool) map[string]counts {
	t.Helper()
	var now map[string]counts
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now = outputs(t, addr); is(now) {
			return now
		}
	}
	t.Fatalf("not so: %s: %+v", what, now)
	return nil
}
