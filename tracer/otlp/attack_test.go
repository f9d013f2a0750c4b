package otlp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// forged is what a receiver says to write a line of its own into the tracer's log, and to
// move the cursor of its reader.
var forged = "busy\r\ndnstrace: ready\n\x1b[2J\x1b]0;t\a\u202e" + strings.Repeat("long ", 2000)

// packed returns a message on the wire.
func packed(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// raw starts a server that answers each connection with the same bytes.
func raw(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_ = req.Body.Close()
				fmt.Fprint(c, answer)
			}
			_ = c.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

// Whatever a receiver says, and in whichever way, makes one line of the tracer's log, of
// a bounded length and without escape sequences.
func TestReasonIsPlain(t *testing.T) {
	says := func(code int, kind, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	accepts := &collogspb.ExportLogsServiceResponse{PartialSuccess: &collogspb.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: forged}}
	overGRPC := listenGRPC(t, nil)
	overGRPC.say(answer{grpc: status.New(codes.InvalidArgument, forged)})
	for name, url := range map[string]string{
		"text":            says(400, "text/plain", forged),
		"protobuf":        says(400, protobufType, packed(t, &rpcstatus.Status{Message: forged})),
		"partial success": says(200, protobufType, packed(t, accepts)),
		"status line":     raw(t, "HTTP/1.1 400 \x1b[2J\u202e"+strings.Repeat("x", 5000)+"\r\nContent-Length: 0\r\n\r\n"),
		"redirect":        raw(t, "HTTP/1.1 302 Found\r\nLocation: http://\u202e"+strings.Repeat("x", 5000)+"/\r\nContent-Length: 0\r\n\r\n"),
		"gRPC":            overGRPC.url,
	} {
		t.Run(name, func(t *testing.T) {
			logs, _, said := open(t, url+logsSignal.path)
			write(t, 1, logs)
			closed(t, logs)
			wantStats(t, logs, 0, 1)
			said.mu.Lock()
			defer said.mu.Unlock()
			if len(said.lines) == 0 {
				t.Error("nothing was reported")
			}
			for _, line := range said.lines {
				if strings.ContainsAny(line, "\n\r\x1b\a\u202e") || len(line) > 1500 {
					t.Errorf("%q", line)
				}
			}
		})
	}
}

// What a receiver answers beyond any reason is not kept.
func TestLargeAnswer(t *testing.T) {
	overGRPC := listenGRPC(t, nil)
	overGRPC.say(answer{grpc: status.New(codes.InvalidArgument, strings.Repeat("x", 1<<20))})
	logs, _, said := open(t, overGRPC.url+logsSignal.path)
	write(t, 1, logs)
	eventually(t, "it is reported", func() bool { return said.String() != "" })
	closed(t, logs)
	if got := said.String(); len(got) > 3000 {
		t.Errorf("%d bytes: %.300s", len(got), got)
	}
}

// However a variable with credentials is written wrong, no message repeats them.
func TestHeadersAreNotShown(t *testing.T) {
	for _, value := range []string{
		"secret", "Authorization: Bearer secret", "Authorization: Basic secret==", "a=b,Authorization Bearer secret", "Authorization=Bearer%zzsecret",
		"\"secret\"=a", "a=1,secret", "=secret",
	} {
		_, err := readEnvironment(func(name string) string {
			if name == "OTEL_EXPORTER_OTLP_HEADERS" {
				return value
			}
			return ""
		})
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS: expected key=value") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// A receiver that answers without end, packed a thousandfold or not, is hung up on.
func TestAnswerWithoutEnd(t *testing.T) {
	for name, packed := range map[string]bool{"plain": false, "gzip": true} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan int, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				var out io.Writer = w
				if packed {
					w.Header().Set("Content-Encoding", "gzip")
					out = gzip.NewWriter(w)
				}
				w.WriteHeader(http.StatusBadRequest)
				block, sent := bytes.Repeat([]byte("no"), 1<<19), 0
				for ; sent < 4<<30; sent += len(block) {
					if _, err := out.Write(block); err != nil {
						break
					}
				}
				ended <- sent
			}))
			t.Cleanup(s.Close)
			logs, _, said := open(t, s.URL+logsSignal.path)
			write(t, 1, logs)
			if sent := <-ended; sent >= 4<<30 {
				t.Errorf("%d bytes were taken", sent)
			}
			closed(t, logs)
			if got := said.String(); !strings.Contains(got, "400 Bad Request: nono") || len(got) > 1500 {
				t.Errorf("%.300s", got)
			}
		})
	}
}
