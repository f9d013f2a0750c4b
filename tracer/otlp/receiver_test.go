package otlp

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// receiver is a collector in this process. Answers are taken from its list first.
type receiver struct {
	url string // of the endpoint

	mu      sync.Mutex
	answers []answer
	calls   int
	headers []string // of x-test, in order
	records int      // log records and spans accepted
	bodies  []string // of log records accepted
	block   chan struct{}
}

// answer is what a receiver says instead of yes.
type answer struct {
	http     int
	grpc     *status.Status
	after    string // Retry-After
	rejected int64  // partial success
}

// next counts a call and returns what to say; the lock is not held while blocked.
func (r *receiver) next(header string) answer {
	r.mu.Lock()
	block := r.block
	r.mu.Unlock()
	if block != nil {
		<-block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	r.headers = append(r.headers, header)
	if len(r.answers) == 0 {
		return answer{}
	}
	a := r.answers[0]
	r.answers = r.answers[1:]
	return a
}

func (r *receiver) accept(m proto.Message, rejected int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := m.(type) {
	case *collogspb.ExportLogsServiceRequest:
		for _, l := range m.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords() {
			r.bodies = append(r.bodies, l.GetBody().GetStringValue())
			r.records++
		}
	case *coltracepb.ExportTraceServiceRequest:
		for _, res := range m.GetResourceSpans() {
			r.records += len(res.GetScopeSpans()[0].GetSpans())
		}
	}
	r.records -= int(rejected)
}

func (r *receiver) state() (calls, records int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls, r.records
}

func (r *receiver) say(answers ...answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = answers
}

// listenHTTP starts a receiver of OTLP/HTTP; config may be nil.
func listenHTTP(t *testing.T, secure bool) (*receiver, *httptest.Server) {
	t.Helper()
	r := new(receiver)
	srv := httptest.NewUnstartedServer(r)
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r, srv
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	in := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in = unpacked
	}
	body, err := io.ReadAll(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := r.next(req.Header.Get("X-Test"))
	if a.http != 0 {
		if a.http == http.StatusPermanentRedirect {
			w.Header().Set("Location", r.url+logsSignal.path)
		}
		if a.after != "" {
			w.Header().Set("Retry-After", a.after)
		}
		http.Error(w, "not now", a.http)
		return
	}
	var request, response proto.Message
	switch req.URL.Path {
	case logsSignal.path:
		request = new(collogspb.ExportLogsServiceRequest)
		response = &collogspb.ExportLogsServiceResponse{PartialSuccess: &collogspb.ExportLogsPartialSuccess{RejectedLogRecords: a.rejected, ErrorMessage: "too old"}}
	case tracesSignal.path:
		request = new(coltracepb.ExportTraceServiceRequest)
		response = &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: a.rejected, ErrorMessage: "too old"}}
	default:
		http.NotFound(w, req)
		return
	}
	if err := proto.Unmarshal(body, request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.accept(request, a.rejected)
	out, err := proto.Marshal(response)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", protobufType)
	_, _ = w.Write(out)
}

// listenGRPC starts a receiver of OTLP/gRPC.
func listenGRPC(t *testing.T, secure *tls.Config) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{url: "grpc://" + l.Addr().String()}
	var options []grpc.ServerOption
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
		r.url = "grpcs://" + l.Addr().String()
	}
	srv := grpc.NewServer(options...)
	collogspb.RegisterLogsServiceServer(srv, &logsService{receiver: r})
	coltracepb.RegisterTraceServiceServer(srv, &traceService{receiver: r})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return r
}

type logsService struct {
	collogspb.UnimplementedLogsServiceServer
	receiver *receiver
}

// Export implements LogsServiceServer.
func (s *logsService) Export(ctx context.Context, m *collogspb.ExportLogsServiceRequest) (*collogspb.ExportLogsServiceResponse, error) {
	a := s.receiver.next(header(ctx))
	if a.grpc != nil {
		return nil, a.grpc.Err()
	}
	s.receiver.accept(m, a.rejected)
	return &collogspb.ExportLogsServiceResponse{PartialSuccess: &collogspb.ExportLogsPartialSuccess{RejectedLogRecords: a.rejected}}, nil
}

type traceService struct {
	coltracepb.UnimplementedTraceServiceServer
	receiver *receiver
}

// Export implements TraceServiceServer.
func (s *traceService) Export(ctx context.Context, m *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	a := s.receiver.next(header(ctx))
	if a.grpc != nil {
		return nil, a.grpc.Err()
	}
	s.receiver.accept(m, a.rejected)
	return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: a.rejected}}, nil
}

func header(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get("x-test")) > 0 {
		return md.Get("x-test")[0]
	}
	return ""
}

// eventually waits for something that is sure to come.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// unavailable is what a receiver that cannot take more says over gRPC.
func unavailable() *status.Status { return status.New(codes.Unavailable, "not now") }
