package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"

	"github.com/dnstrace/dnstrace/trace/trustedpath"
	"github.com/dnstrace/dnstrace/tracer/history"
)

// maxLine bounds a line from the server: what [trace.Reader] accepts, twice.
const maxLine = 8 << 20

// ErrEnded is wrapped by the error of a Traces call that followed a tracer
// which stopped.
var ErrEnded = errors.New("the tracer stopped")

// errDisconnected is the error of an answer without its end.
var errDisconnected = errors.New("the tracer cut this reader off, which took nothing for a minute, or was killed")

// Client reads from the API at a path.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket at path. Nothing is opened yet.
func NewClient(path string) *Client {
	dialer := &net.Dialer{}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	}}}
}

// Traces calls each with every line, without its newline and valid during the
// call, and lost with the number of traces that a slow reader missed; before that reach,
// with how far back the answer goes. It returns the first error of each, ctx's error, or
// one that says what would help.
func (c *Client) Traces(ctx context.Context, q Query, reach func(history.Reach), each func(line []byte) error, lost func(n uint64)) error {
	resp, err := c.ask(ctx, "/v1/traces?"+q.values().Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var back history.Reach
	if err := json.Unmarshal([]byte(resp.Header.Get(reachHeader)), &back); err != nil {
		return fmt.Errorf("%s: it does not say how far back it goes: is it of another version?: %w", c.path, err)
	}
	reach(back)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.HasPrefix(line, []byte(`{"lost":`)) {
			var l lostLine
			if err := json.Unmarshal(line, &l); err != nil {
				return fmt.Errorf("%s: a line that this version does not know: %w", c.path, err)
			}
			lost(l.Lost)
			continue
		}
		if err := each(line); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w; read faster, or into a file", c.path, errDisconnected)
	case q.Follow:
		return fmt.Errorf("%w: the connection to %s ended", ErrEnded, c.path)
	case err != nil:
		return fmt.Errorf("reading from %s: %w", c.path, err)
	}
	return nil
}

// Messages asks for the messages with an id from and to a client.
func (c *Client) Messages(ctx context.Context, client netip.AddrPort, id uint16) ([]Message, error) {
	body, err := c.get(ctx, fmt.Sprintf("/v1/messages?client=%s&id=%d", url.QueryEscape(client.String()), id))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var found []Message
	if err := json.NewDecoder(body).Decode(&found); err != nil {
		return nil, fmt.Errorf("reading from %s: %w", c.path, err)
	}
	return found, nil
}

// Status asks how the tracer fares.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := c.get(ctx, "/v1/status")
	if err != nil {
		return s, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return s, fmt.Errorf("reading from %s: %w", c.path, err)
	}
	return s, nil
}

// Ready returns nil if a tracer runs and does its work, or why not.
func (c *Client) Ready(ctx context.Context) error {
	body, err := c.get(ctx, "/readyz")
	if err != nil {
		return err
	}
	return body.Close()
}

func (c *Client) get(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.ask(ctx, path)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ask returns an answer whose status is OK. The caller must close its body.
func (c *Client) ask(ctx context.Context, path string) (*http.Response, error) {
	if err := trustedpath.Socket(c.path); err != nil {
		return nil, fmt.Errorf("%w (--api)", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dnstrace"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.dialError(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	why, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil || len(why) == 0 {
		why = []byte(resp.Status)
	}
	return nil, fmt.Errorf("the tracer at %s refused: %s", c.path, strings.TrimSpace(string(why)))
}

func (c *Client) dialError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("is `dnstrace run` running on this node? expected its API at %s; use --api, or --from FILE", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied on %s: it belongs to the user who started `dnstrace run`; become that user (sudo), or use --from FILE", c.path)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("the tracer at %s: %w", c.path, err)
}
