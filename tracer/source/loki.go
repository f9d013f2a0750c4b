package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"regexp"
	"strconv"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of what is read from Loki.
const (
	// DefaultQuery selects the streams that the examples of dnstrace write to.
	DefaultQuery = `{job="dnstrace"}`

	defaultSince = time.Hour   // where nobody says how far back, as Loki's own tools do
	pageEntries  = 1000        // of some kilobytes each
	maxEntries   = 5000        // the most that Loki gives in its default configuration
	pollEvery    = time.Second // when following
	afterFailure = 5 * time.Second
	overlap      = 20 * time.Second // how late an agent may deliver a line that is followed
	aheadOfUs    = time.Minute      // how far the clock of a node may be ahead of ours

	// maxRecent bounds the lines of overlap: 50,000 a second.
	maxRecent = 1 << 20
)

// Loki reads records from Grafana Loki: lines that are records, in the streams
// that a query selects. Records of one lookup that came from several nodes, and
// from CoreDNS, become one trace.
type Loki struct {
	Joining
	URL    string // such as http://loki:3100
	Access Access
	Query  string // LogQL that selects streams; empty: DefaultQuery
	Stderr io.Writer
	// Wait is how long to wait before a request is tried again, and when
	// following before the next; nil: the clock's.
	Wait func(ctx context.Context, d time.Duration) error

	most int64 // bytes of an answer; 0: maxAnswer
}

// String implements Source.
func (l Loki) String() string {
	where := "an address that cannot be read"
	if u, err := lokiURL(l.URL); err == nil {
		where = u.String()
	}
	return "Loki at " + where + ", " + l.query()
}

func (l Loki) query() string {
	if l.Query == "" {
		return DefaultQuery
	}
	return l.Query
}

// Each implements Source.
func (l Loki) Each(ctx context.Context, r Request, each func(Lookup) error) (Read, error) {
	c, err := l.client()
	if err != nil {
		return Read{}, err
	}
	if r.Follow {
		return l.follow(ctx, c, r, each)
	}
	if r.Since == 0 {
		r.Since = defaultSince
	}
	now := l.Now()
	from, to := now.Add(-r.Since), now.Add(aheadOfUs)
	if !r.ID.IsZero() {
		names, first, last, err := l.find(ctx, c, r.ID, from, to)
		if err != nil || len(names) == 0 {
			return Read{}, err
		}
		r.Names, r.Text = func(name string) bool { return names[name] }, ""
		if len(names) == 1 {
			for name := range names {
				r.Text = name
			}
		}
		from, to = first.Add(-around), last.Add(around)
	}
	all := newCollection(l.Joining, r)
	bad := badLines{w: l.Stderr, source: l.String()}
	err = c.entries(ctx, l.named(r.Text), from, to, func(e lokiEntry) error {
		return e.decode(&bad, all.record)
	})
	bad.end()
	if err != nil {
		all.sorter.Close()
		return all.seen, err
	}
	return all.lookups(ctx, each)
}

// find looks for the names that were looked up under a trace id, and when: the
// upstream queries of a lookup have other ids, but its name.
func (l Loki) find(ctx context.Context, c *lokiClient, id trace.TraceID, from, to time.Time) (names map[string]bool, first, last time.Time, err error) {
	names = map[string]bool{}
	// The ids of both sides of a time step end in the same flow.
	flow := id.String()[8:]
	err = c.entries(ctx, l.narrowed(flow), from, to, func(e lokiEntry) error {
		rec, err := trace.Decode(e.line)
		if err != nil {
			return nil
		}
		names[nameOf(rec)] = true
		for _, at := range []time.Time{e.at, rec.Head().Time} {
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
		return nil
	})
	return names, first, last, err
}

// plainText is what stands in JSON as it is written in a line filter.
var plainText = regexp.MustCompile(`^[a-z0-9._/ -]+$`)

// narrowed adds a filter to the query that leaves out lines without a text, so
// that they are not sent. A query that does more than select streams may have
// changed the line, and is left alone.
func (l Loki) narrowed(text string) string {
	if text == "" || !plainText.MatchString(text) {
		return l.query()
	}
	return l.query() + ` |= ` + strconv.Quote(text)
}

// named is narrowed for a name, which the attempts to connect do not have that may
// be of its lookups.
func (l Loki) named(text string) string {
	if text == "" || !plainText.MatchString(text) {
		return l.query()
	}
	return l.query() + ` |~ ` + strconv.Quote(regexp.QuoteMeta(text)+`|"qname":null`)
}

// decode hands a record on, and reports a line that is none.
func (e *lokiEntry) decode(bad *badLines, use func(trace.Record, []byte) error) error {
	line := bytes.TrimSpace(e.line)
	rec, err := trace.Decode(line)
	if err != nil {
		bad.add(fmt.Errorf("the line of %s: %w", e.at.UTC().Format(time.RFC3339Nano), err))
		return nil
	}
	return use(rec, line)
}

// follow polls for new lines. A line may come later than younger ones, so each poll goes
// back a little, and skips known lines.
func (l Loki) follow(ctx context.Context, c *lokiClient, r Request, each func(Lookup) error) (Read, error) {
	all := newCollection(l.Joining, r)
	if all.since.IsZero() {
		all.since = l.Now()
	}
	j := newJoiner(l.Joining, all.pass(each))
	bad := badLines{w: l.Stderr, source: l.String()}
	defer bad.end()
	seen := recent{seed: maphash.MakeSeed(), at: map[uint64]time.Time{}}
	from, reached := all.since, false
	for {
		now := l.Now()
		came := false
		err := c.entries(ctx, l.query(), from, now.Add(aheadOfUs), func(e lokiEntry) error {
			if seen.before(&e) {
				return nil
			}
			if len(seen.at) > maxRecent {
				return fmt.Errorf("--loki: more than %d lines in %s are too many to follow; --loki-query can select fewer", maxRecent, overlap)
			}
			came = true
			return e.decode(&bad, func(rec trace.Record, line []byte) error { return j.add(rec, bytes.Clone(line)) })
		})
		var again *passing
		if reached && errors.As(err, &again) {
			// Loki may be back soon: what it got meanwhile is asked for then.
			c.tell("%v; trying on", err)
			if err := c.wait(ctx, afterFailure); err != nil {
				return all.seen, err
			}
			continue
		}
		reached = true
		if err == nil && !came {
			err = j.idle(pollEvery)
		}
		if err == nil {
			err = c.wait(ctx, pollEvery)
		}
		if err != nil {
			return all.seen, unlessStop(err)
		}
		if next := now.Add(-overlap); next.After(from) {
			from = next
		}
		seen.forget(from)
	}
}

// recent remembers the lines of the time that is asked for again.
type recent struct {
	seed maphash.Seed
	at   map[uint64]time.Time
}

// before tells whether a line was there before.
func (r *recent) before(e *lokiEntry) bool {
	var h maphash.Hash
	h.SetSeed(r.seed)
	maphash.WriteComparable(&h, e.at.UnixNano())
	_, _ = h.Write(e.line) // it cannot fail
	sum := h.Sum64()
	if _, ok := r.at[sum]; ok {
		return true
	}
	r.at[sum] = e.at
	return false
}

func (r *recent) forget(before time.Time) {
	for sum, at := range r.at {
		if at.Before(before) {
			delete(r.at, sum)
		}
	}
}
