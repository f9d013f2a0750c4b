package otlp

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/dnstrace/dnstrace/trace"
)

// reports collects what outputs report.
type reports struct {
	mu    sync.Mutex
	lines []string
}

func (r *reports) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// open opens the outputs of a URL, with short pauses.
func open(t *testing.T, url string) (*Logs, *Traces, *reports) {
	t.Helper()
	said := new(reports)
	logs, traces, err := Open(Config{URL: url, Version: "1.2.3", Report: said.add})
	if err != nil {
		t.Fatal(err)
	}
	if logs != nil {
		logs.first = time.Millisecond
	}
	if traces != nil {
		traces.first = time.Millisecond
	}
	return logs, traces, said
}

// write writes a trace n times.
func write(t *testing.T, n int, outputs ...interface {
	Write(trace.Record, []byte)
}) {
	t.Helper()
	tr := one(t, "silent-upstream")
	line := tr.AppendJSON(nil)
	for range n {
		for _, o := range outputs {
			o.Write(tr, line)
		}
	}
}

func closed(t *testing.T, o interface{ Close() error }) {
	t.Helper()
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// spansOfOne is how many spans the trace has that write writes.
const spansOfOne = 4

type stats interface {
	Stats() (written, dropped uint64)
	Name() string
}

func wantStats(t *testing.T, o stats, written, dropped uint64) {
	t.Helper()
	if w, d := o.Stats(); w != written || d != dropped {
		t.Errorf("%s: %d written and %d dropped, expected %d and %d", o.Name(), w, d, written, dropped)
	}
}

// What is written arrives, over each way, with the headers of the environment.
func TestDelivery(t *testing.T) {
	certificates := httpsCertificate(t)
	for _, tt := range []struct {
		name   string
		listen func() *receiver
		env    map[string]string
	}{
		{"http", func() *receiver { r, _ := listenHTTP(t, false); return r }, nil},
		{"http, not compressed", func() *receiver { r, _ := listenHTTP(t, false); return r }, map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}},
		{"https", func() *receiver { r, _ := listenHTTP(t, true); return r }, map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": certificates.path}},
		{"grpc", func() *receiver { return listenGRPC(t, nil) }, nil},
		{"grpc, not compressed", func() *receiver { return listenGRPC(t, nil) }, map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}},
		{"grpcs", func() *receiver { return listenGRPC(t, certificates.config) }, map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": certificates.path}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-test=a%20b")
			for key, value := range tt.env {
				t.Setenv(key, value)
			}
			r := tt.listen()
			logs, traces, said := open(t, r.url)
			write(t, 3, logs, traces)
			closed(t, logs)
			closed(t, traces)
			wantStats(t, logs, 3, 0)
			wantStats(t, traces, 3, 0)
			if calls, records := r.state(); calls != 2 || records != 3+3*spansOfOne {
				t.Errorf("%d calls with %d log records and spans; said %q", calls, records, said)
			}
			if !slices.Equal(r.headers, []string{"a b", "a b"}) {
				t.Errorf("headers %q", r.headers)
			}
			if want := string(one(t, "silent-upstream").AppendJSON(nil)); !slices.Equal(r.bodies, []string{want, want, want}) {
				t.Errorf("bodies are not the record's line: %q", r.bodies)
			}
		})
	}
}

// certificate is the test server's of net/http/httptest, as a file and for a server.
type certificate struct {
	path   string
	config *tls.Config
}

func httpsCertificate(t *testing.T) certificate {
	t.Helper()
	_, srv := listenHTTP(t, true)
	c := certificate{filepath.Join(t.TempDir(), "ca.pem"), &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: []string{"h2"}}}
	if err := os.WriteFile(c.path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// A receiver that cannot take a request now gets it again; one that refuses it does
// not.
func TestRetry(t *testing.T) {
	pausing, err := status.New(codes.ResourceExhausted, "full").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		first answer
		again bool
	}{
		{"429", answer{http: http.StatusTooManyRequests, after: "0"}, true},
		{"502", answer{http: http.StatusBadGateway}, true},
		{"503", answer{http: http.StatusServiceUnavailable}, true},
		{"504", answer{http: http.StatusGatewayTimeout}, true},
		{"elsewhere", answer{http: http.StatusPermanentRedirect}, false},
		{"400", answer{http: http.StatusBadRequest}, false},
		{"401", answer{http: http.StatusUnauthorized}, false},
		{"413", answer{http: http.StatusRequestEntityTooLarge}, false},
		{"500", answer{http: http.StatusInternalServerError}, false},
		{"unavailable", answer{grpc: unavailable()}, true},
		{"exhausted, with a pause", answer{grpc: pausing}, true},
		{"exhausted for good", answer{grpc: status.New(codes.ResourceExhausted, "too large")}, false},
		{"unauthenticated", answer{grpc: status.New(codes.Unauthenticated, "who?")}, false},
		{"unimplemented", answer{grpc: status.New(codes.Unimplemented, "no logs here")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := listenGRPC(t, nil)
			if tt.first.http != 0 {
				r, _ = listenHTTP(t, false)
			}
			r.say(tt.first, tt.first)
			logs, _, said := open(t, r.url+logsSignal.path)
			write(t, 2, logs)
			calls, written, dropped := 1, uint64(0), uint64(2)
			if tt.again {
				calls, written, dropped = 3, 2, 0
			}
			closed(t, logs)
			wantStats(t, logs, written, dropped)
			if n, records := r.state(); n != calls || uint64(records) != written {
				t.Errorf("%d calls, %d records accepted; said %q", n, records, said)
			}
			if strings.Count(said.String(), "dropped and counted") != 1 || strings.Contains(said.String(), "delivers again") != tt.again {
				t.Errorf("said %q", said)
			}
		})
	}
}

// What a receiver takes in part is counted in part.
func TestPartialSuccess(t *testing.T) {
	r, _ := listenHTTP(t, false)
	logs, traces, said := open(t, r.url)
	r.say(answer{rejected: 2})
	write(t, 5, logs)
	closed(t, logs)
	if !strings.Contains(said.String(), "2 records were not delivered at the end: the receiver rejected 2 of them: too old") {
		t.Errorf("said %q", said)
	}
	wantStats(t, logs, 3, 2)
	r.say(answer{rejected: 100}) // spans: more than there are records
	write(t, 5, traces)
	closed(t, traces)
	wantStats(t, traces, 0, 5)
}

// Where nobody listens, records wait, up to a bound; what comes then is dropped and
// counted, nothing blocks, and the end comes all the same.
func TestAbsentReceiver(t *testing.T) {
	for _, scheme := range []string{"http", "grpc"} {
		t.Run(scheme, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			absent := l.Addr().String()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			logs, _, said := open(t, scheme+"://"+absent+logsSignal.path)
			size := len(one(t, "silent-upstream").AppendJSON(nil))
			total := 3 * queueBytes / size
			write(t, total, logs)
			if _, dropped := logs.Stats(); dropped == 0 || logs.Queued() == 0 || logs.queue.bytes > queueBytes {
				t.Fatalf("%d dropped, %d queued, %d bytes", dropped, logs.Queued(), logs.queue.bytes)
			}
			eventually(t, "the failure is reported", func() bool { return strings.Contains(said.String(), "refused") })
			logs.Last(time.Millisecond)
			closed(t, logs)
			if last := said.lines[len(said.lines)-1]; !strings.Contains(last, "not delivered at the end") || !strings.Contains(last, "refused") {
				t.Errorf("said %q", said)
			}
			if written, dropped := logs.Stats(); written != 0 || dropped != uint64(total) {
				t.Errorf("%d written, %d dropped of %d", written, dropped, total)
			}
		})
	}
}

// A receiver that is slow holds nobody up; what it misses meanwhile is counted, and
// the rest arrives.
func TestSlowReceiver(t *testing.T) {
	r, _ := listenHTTP(t, false)
	r.block = make(chan struct{})
	logs, _, _ := open(t, r.url+logsSignal.path)
	size := len(one(t, "silent-upstream").AppendJSON(nil))
	total := 2 * queueBytes / size
	write(t, total, logs)
	_, dropped := logs.Stats()
	if dropped == 0 {
		t.Error("nothing was dropped")
	}
	close(r.block)
	logs.Last(time.Minute)
	closed(t, logs)
	wantStats(t, logs, uint64(total)-dropped, dropped)
	if calls, records := r.state(); uint64(records) != uint64(total)-dropped || calls < queueBytes/batchBytes {
		t.Errorf("%d records in %d calls", records, calls)
	}
}

// Nor does the end wait for a receiver that does not answer.
func TestSilentReceiverAtTheEnd(t *testing.T) {
	r, _ := listenHTTP(t, false)
	r.block = make(chan struct{})
	defer close(r.block)
	logs, _, said := open(t, r.url+logsSignal.path)
	write(t, 1, logs)
	logs.Last(time.Millisecond)
	closed(t, logs)
	if !strings.Contains(said.String(), "1 records were not delivered at the end: the receiver did not take them in time") {
		t.Errorf("said %q", said)
	}
	wantStats(t, logs, 0, 1)
}

// What is left at the end comes all at once and waits for room.
func TestLastRecordsWait(t *testing.T) {
	r, _ := listenHTTP(t, false)
	logs, _, _ := open(t, r.url+logsSignal.path)
	size := len(one(t, "silent-upstream").AppendJSON(nil))
	total := 2 * queueBytes / size
	logs.Last(time.Minute)
	write(t, total, logs)
	closed(t, logs)
	wantStats(t, logs, uint64(total), 0)
}

// A batch goes when it is old enough, without anybody who closes or fills it.
func TestBatchAge(t *testing.T) {
	r, _ := listenHTTP(t, false)
	logs, _, _ := open(t, r.url+logsSignal.path)
	defer logs.Close()
	write(t, 1, logs)
	eventually(t, "it has arrived", func() bool { _, n := r.state(); return n == 1 })
}

// Exchanges make no spans, and a receiver of one signal is named in the failure.
func TestOneSignal(t *testing.T) {
	r, _ := listenHTTP(t, false)
	logs, traces, said := open(t, r.url+"/elsewhere")
	tr := one(t, "silent-upstream")
	traces.Write(tr.Exchange, tr.Exchange.AppendJSON(nil))
	closed(t, traces)
	wantStats(t, traces, 0, 0)
	logs.Write(tr.Exchange, tr.Exchange.AppendJSON(nil))
	closed(t, logs)
	wantStats(t, logs, 0, 1)
	if want := fmt.Sprintf("POST %s/elsewhere/v1/logs says 404 Not Found", r.url); !strings.Contains(said.String(), want) || !strings.Contains(said.String(), "end the URL with /v1/logs or /v1/traces") {
		t.Errorf("said %q", said)
	}
}
