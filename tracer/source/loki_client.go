package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/dnstrace/dnstrace/tracer/oneline"
	"github.com/dnstrace/dnstrace/tracer/webclient"
)

const (
	// lokiPatience bounds one request: a query over a long range takes Loki time.
	lokiPatience = time.Minute
	// lokiTries is how often a request is made that may work the next time.
	lokiTries = 4
	// lokiPause is the first wait before a request is made again; it doubles.
	lokiPause = 500 * time.Millisecond
	// maxASecond bounds the lines of a second: a faulty Loki that returns more would never
	// end.
	maxASecond = 500_000
	// maxReason bounds a quoted reason: Loki's, which names the limit that was exceeded,
	// takes 230 bytes.
	maxReason = 300
)

// lokiClient asks Loki for log lines.
type lokiClient struct {
	http   *http.Client
	base   *url.URL
	access Access
	wait   func(context.Context, time.Duration) error
	tell   func(format string, args ...any)
	most   int64 // bytes of an answer
}

// lokiEntry is one line. It belongs to the callback.
type lokiEntry struct {
	at   time.Time
	line []byte
}

func (l Loki) client() (*lokiClient, error) {
	base, err := lokiURL(l.URL)
	if err != nil {
		return nil, err
	}
	c := &lokiClient{http: webclient.New(l.Access.TLS), base: base, access: l.Access, wait: l.Wait, most: cmp.Or(l.most, maxAnswer)}
	c.http.Timeout = lokiPatience
	if c.wait == nil {
		c.wait = waitFor
	}
	bad := badLines{w: l.Stderr, source: l.String()}
	c.tell = bad.printf
	return c, nil
}

func waitFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// entries calls each with every line of the query from one time up to another,
// in order of time, page by page.
func (c *lokiClient) entries(ctx context.Context, query string, from, to time.Time, each func(lokiEntry) error) error {
	limit := pageEntries
	// The lines of the page's last moment: the next page begins with them.
	last := map[string]bool{}
	second, lines := from, 0
	for from.Before(to) {
		page, err := c.page(ctx, query, from, to, limit)
		if err != nil {
			return err
		}
		for _, e := range page {
			if e.at.Before(from) || !e.at.Before(to) {
				return fmt.Errorf("--loki: the answer has a line of %s, which was not asked for; is something else at this address?", e.at.UTC().Format(time.RFC3339Nano))
			}
			if e.at.Equal(from) && last[string(e.line)] {
				continue
			}
			if err := each(e); err != nil {
				return err
			}
		}
		if len(page) < limit {
			return nil
		}
		end := page[len(page)-1].at
		if lines += len(page); end.Sub(second) >= time.Second {
			second, lines = end, 0
		} else if lines > maxASecond {
			return fmt.Errorf("--loki: more than %d lines are of the second from %s on; is something else at this address?", maxASecond, second.UTC().Format(time.RFC3339Nano))
		}
		switch {
		case end.After(from):
			clear(last)
			from, limit = end, pageEntries
		case limit < maxEntries:
			// A moment with more lines than a page.
			limit = maxEntries
		default:
			c.tell("more than %d lines have the time %s: some of them are not read", maxEntries, end.UTC().Format(time.RFC3339Nano))
			clear(last)
			from, limit = end.Add(1), pageEntries
			continue
		}
		for _, e := range page {
			if e.at.Equal(end) {
				last[string(e.line)] = true
			}
		}
	}
	return nil
}

// page asks once, and again where that may help.
func (c *lokiClient) page(ctx context.Context, query string, from, to time.Time, limit int) ([]lokiEntry, error) {
	values := url.Values{
		"query": {query}, "direction": {"forward"}, "limit": {strconv.Itoa(limit)},
		"start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(to.UnixNano(), 10)},
	}
	pause := lokiPause
	for try := 1; ; try++ {
		page, err := c.ask(ctx, values)
		var again *passing
		if err == nil || ctx.Err() != nil || !errors.As(err, &again) || try == lokiTries {
			if again != nil && ctx.Err() == nil {
				err = fmt.Errorf("%w; tried %d times", err, try)
			}
			return page, err
		}
		if err := c.wait(ctx, pause); err != nil {
			return nil, err
		}
		pause *= 2
	}
}

// passing is an error that may be over the next time.
type passing struct{ error }

// Unwrap returns the cause.
func (p *passing) Unwrap() error { return p.error }

func (c *lokiClient) ask(ctx context.Context, values url.Values) ([]lokiEntry, error) {
	u := c.base.JoinPath("loki/api/v1/query_range")
	u.RawQuery = values.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	c.access.show(req)
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// The URL in the error is the whole query.
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err
		}
		return nil, &passing{fmt.Errorf("--loki: %w; is Loki at %s, and can this machine reach it?", err, c.base)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, c.refusal(resp, values.Get("query"))
	}
	limit, err := strconv.Atoi(values.Get("limit"))
	if err != nil {
		return nil, err
	}
	return parsePage(http.MaxBytesReader(nil, resp.Body, c.most), limit)
}

// refusal says what Loki has against a request, and what would help.
func (c *lokiClient) refusal(resp *http.Response, query string) error {
	// What can be read of the reason is enough.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 2*maxReason))
	err := fmt.Errorf("Loki at %s: %s: %s", c.base, oneline.Shorten(resp.Status, maxReason), oneline.Shorten(string(text), maxReason))
	if where := webclient.Redirect(resp); where != "" {
		return fmt.Errorf("Loki at %s: %s: %s", c.base, oneline.Shorten(resp.Status, maxReason), where)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code >= 500:
		return &passing{fmt.Errorf("%w; a shorter --since or --window asks for less", err)}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%w; LOKI_USERNAME and LOKI_PASSWORD, or LOKI_BEARER_TOKEN, say who asks, --loki-tenant or LOKI_ORG_ID for which tenant", err)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w; --loki takes the address of Loki itself, without /loki/api", err)
	case code == http.StatusBadRequest:
		return fmt.Errorf("%w; the query was %s: --loki-query takes a LogQL log query, --since bounds the time", err, query)
	}
	return err
}
