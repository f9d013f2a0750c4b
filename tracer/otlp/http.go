package otlp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/tracer/oneline"
	"github.com/dnstrace/dnstrace/tracer/webclient"
)

// maxResponse bounds what is read of a response: a status, not data.
const maxResponse = 64 << 10

const protobufType = "application/x-protobuf"

// httpTransport sends over HTTP, in protobuf.
type httpTransport struct {
	url     string
	env     environment
	agent   string
	client  *http.Client
	body    bytes.Buffer // of the request, used again
	packer  *gzip.Writer
	encoded []byte
}

func newHTTPTransport(e endpoint, s signal, env environment, agent string) (*httpTransport, error) {
	packer, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	return &httpTransport{url: e.url(s), env: env, agent: agent, client: webclient.New(env.tls.Clone()), packer: packer}, nil
}

// send implements transport.
func (t *httpTransport) send(ctx context.Context, request, response proto.Message) error {
	if err := t.encode(request); err != nil {
		return &failure{err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, t.env.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(t.body.Bytes()))
	if err != nil {
		return &failure{err: err}
	}
	req.Header.Set("Content-Type", protobufType)
	req.Header.Set("User-Agent", t.agent)
	if t.env.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for key, value := range t.env.headers {
		req.Header.Set(key, value)
	}
	resp, err := t.client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", t.env.timeout, err)
	}
	if err != nil {
		return &failure{err: err, retry: true}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return &failure{err: fmt.Errorf("reading the answer: %w", err), retry: true}
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, body)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), protobufType) {
		// One that cannot be read rejects nothing: the request was accepted.
		_ = proto.Unmarshal(body, response)
	}
	return nil
}

func (t *httpTransport) encode(request proto.Message) error {
	var err error
	if t.encoded, err = (proto.MarshalOptions{}).MarshalAppend(t.encoded[:0], request); err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	t.body.Reset()
	if !t.env.gzip {
		t.body.Write(t.encoded)
		return nil
	}
	t.packer.Reset(&t.body)
	if _, err := t.packer.Write(t.encoded); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	if err := t.packer.Close(); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	return nil
}

// refusal is what a response says that is no success. Only these four may be tried
// again (OTLP Specification, Failures).
func refusal(resp *http.Response, body []byte) *failure {
	f := &failure{err: fmt.Errorf("%s %s says %s%s", resp.Request.Method, resp.Request.URL, oneline.Shorten(resp.Status, maxReason), reason(resp, body))}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		f.retry = true
		f.after = retryAfter(resp.Header.Get("Retry-After"))
	case http.StatusNotFound:
		f.err = fmt.Errorf("%w: it may take one signal only; end the URL with %s or %s for that", f.err, logsSignal.path, tracesSignal.path)
	}
	if where := webclient.Redirect(resp); where != "" {
		f.err = fmt.Errorf("%w: %s", f.err, where)
	}
	return f
}

// reason returns the words of an error's body: protobuf by the specification, text
// from everything else.
func reason(resp *http.Response, body []byte) string {
	if strings.HasPrefix(resp.Header.Get("Content-Type"), protobufType) {
		var s status.Status
		if proto.Unmarshal(body, &s) != nil || s.GetMessage() == "" {
			return ""
		}
		return ": " + oneline.Shorten(s.GetMessage(), maxReason)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if line == "" || strings.HasPrefix(line, "<") {
		return "" // a page for a browser
	}
	return ": " + oneline.Shorten(line, maxReason)
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, section
// 10.2.3).
func retryAfter(v string) time.Duration {
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, maxTries)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(time.Until(at), maxTries)
	}
	return 0
}

// close implements transport.
func (t *httpTransport) close() error {
	t.client.CloseIdleConnections()
	return nil
}
