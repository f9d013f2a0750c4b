package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func numbered(n int) *trace.Trace {
	return &trace.Trace{Header: trace.Header{Time: start}, QName: fmt.Sprintf("n%03d.", n)}
}

// names returns the numbers of the traces in lines.
func names(t *testing.T, lines [][]byte) string {
	t.Helper()
	var out []string
	for _, line := range lines {
		_, rest, found := strings.Cut(string(line), `"qname":"n`)
		if !found {
			t.Fatalf("no trace: %s", line)
		}
		out = append(out, rest[:3])
	}
	return strings.Join(out, " ")
}

func TestQuery(t *testing.T) {
	h := New(Config{Keep: time.Minute, MaxBytes: 1 << 20})
	for i := range 5 {
		h.Add(start.Add(time.Duration(i)*time.Second), numbered(i))
	}
	for _, tc := range []struct {
		since time.Duration
		limit int
		want  string
	}{
		{0, 0, "004 003 002 001 000"},
		{0, 2, "004 003"},
		{3 * time.Second, 0, "004 003"},
		{time.Hour, 0, ""},
	} {
		if got := names(t, h.Query(start.Add(tc.since), tc.limit)); got != tc.want {
			t.Errorf("since %s, limit %d: got %q, want %q", tc.since, tc.limit, got, tc.want)
		}
	}
}

func TestBounds(t *testing.T) {
	one := len(numbered(0).AppendJSON(nil)) + entryOverhead
	h := New(Config{Keep: 10 * time.Second, MaxBytes: 3 * one})
	for i := range 5 {
		h.Add(start, numbered(i))
	}
	if got := names(t, h.Query(start, 0)); got != "004 003 002" {
		t.Errorf("by bytes: %q", got)
	}
	h.Expire(start.Add(10 * time.Second))
	if s := h.Stats(); s.Traces != 3 || s.EvictedBytes != 2 || s.EvictedAge != 0 || s.Bytes != 3*one {
		t.Errorf("at the limit of age: %+v", s)
	}
	h.Expire(start.Add(11 * time.Second))
	if s := h.Stats(); s.Traces != 0 || s.EvictedAge != 3 || s.Bytes != 0 {
		t.Errorf("older: %+v", s)
	}
	small := New(Config{Keep: time.Hour, MaxBytes: one - 1})
	small.Add(start, numbered(1))
	if s := small.Stats(); s.Traces != 0 || s.EvictedBytes != 1 || s.Bytes != 0 {
		t.Errorf("a trace larger than the bound: %+v", s)
	}
}

// The list of entries must not grow with what has passed through it.
func TestMemoryStaysBounded(t *testing.T) {
	one := len(numbered(0).AppendJSON(nil)) + entryOverhead
	h := New(Config{Keep: time.Hour, MaxBytes: 100 * one})
	for i := range 20_000 {
		h.Add(start, numbered(i%1000))
	}
	if s := h.Stats(); s.Traces != 100 || cap(h.entries) > 2048 {
		t.Errorf("%+v, room for %d entries", s, cap(h.entries))
	}
}

func TestFollow(t *testing.T) {
	h := New(Config{Keep: time.Minute, MaxBytes: 1 << 20})
	h.Add(start, numbered(0))
	h.Add(start, numbered(1))
	backlog, s := h.Follow(start, 0, 2)
	if got := names(t, backlog); got != "000 001" {
		t.Errorf("backlog %q", got)
	}
	for i := 2; i < 7; i++ {
		h.Add(start, numbered(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	line, lost, err := s.Next(ctx)
	if err != nil || lost != 3 || names(t, [][]byte{line}) != "002" {
		t.Errorf("first: %s, %d lost, %v", line, lost, err)
	}
	line, lost, err = s.Next(ctx)
	if err != nil || lost != 0 || names(t, [][]byte{line}) != "003" {
		t.Errorf("second: %s, %d lost, %v", line, lost, err)
	}
	if st := h.Stats(); st.LostQueued != 3 || st.Subscribers != 1 {
		t.Errorf("%+v", st)
	}
	cancel()
	if _, _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	s.Close()
	if st := h.Stats(); st.Subscribers != 0 {
		t.Errorf("after Close: %+v", st)
	}
}

func TestFollowMissesNothing(t *testing.T) {
	h := New(Config{Keep: time.Minute, MaxBytes: 1 << 24})
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			h.Add(start, numbered(i%1000))
		}
	})
	backlog, s := h.Follow(start, 0, n)
	defer s.Close()
	wg.Wait()
	if got := len(backlog) + len(s.queue); got != n {
		t.Errorf("%d before and %d after make %d, want %d", len(backlog), len(s.queue), got, n)
	}
}
