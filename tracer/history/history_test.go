package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func numbered(n int) []byte {
	t := &trace.Trace{Header: trace.Header{Time: start}, QName: fmt.Sprintf("n%03d.", n)}
	return t.AppendJSON(nil)
}

// names returns the numbers of the traces in lines.
func names(t *testing.T, lines iter.Seq[[]byte]) string {
	t.Helper()
	var out []string
	for line := range lines {
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
		h.Add(start.Add(time.Duration(i)*time.Second), Lookup{Line: numbered(i)})
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

// perBlock is how many of the numbered traces a block takes.
const perBlock = 100

// long is a numbered trace that is a perBlock-th of a block.
func long(n int) []byte {
	return append(numbered(n), bytes.Repeat([]byte(" "), blockBytes/perBlock-entryHead-len(numbered(n))+1)...)
}

func TestBounds(t *testing.T) {
	h := New(Config{Keep: 10 * time.Second, MaxBytes: rooms * 3 * blockBytes})
	for i := range 2*perBlock + 2 {
		h.Add(start.Add(time.Duration(i/perBlock)*time.Second), Lookup{Line: long(i)})
	}
	if s := h.Stats(); s.Traces != 2*perBlock+2 || len(h.rooms[ordinary].blocks) != 2 || s.Bytes > blockBytes {
		t.Errorf("in %d blocks: %+v", len(h.rooms[ordinary].blocks), s)
	}
	h.Expire(start.Add(10 * time.Second))
	if s := h.Stats(); s.Traces != 2*perBlock+2 || s.EvictedAge != 0 {
		t.Errorf("at the limit of age: %+v", s)
	}
	h.Expire(start.Add(11 * time.Second))
	if s := h.Stats(); s.Traces != perBlock+2 || s.EvictedAge != perBlock {
		t.Errorf("the first block is older: %+v", s)
	}
	h.Expire(start.Add(time.Minute))
	if s := h.Stats(); s.Traces != 0 || s.Bytes != 0 || s.EvictedBytes != 0 {
		t.Errorf("all are older: %+v", s)
	}
	small := New(Config{Keep: time.Hour, MaxBytes: 1})
	small.Add(start, Lookup{Line: numbered(1)})
	if s := small.Stats(); s.Traces != 0 || s.EvictedBytes != 1 || s.Bytes != 0 {
		t.Errorf("a trace larger than the bound: %+v", s)
	}
}

// What is too old is not shown, even while younger traces share its block.
func TestOldIsNotShown(t *testing.T) {
	h := New(Config{Keep: 10 * time.Second, MaxBytes: 1 << 20})
	for i := range 3 {
		h.Add(start.Add(time.Duration(i)*time.Second), Lookup{Line: numbered(i)})
	}
	h.Expire(start.Add(11 * time.Second))
	if got := names(t, h.Query(time.Time{}, 0)); got != "002 001" {
		t.Errorf("%q", got)
	}
}

// Lines come back in order from compressed blocks and the open one.
func TestBlocks(t *testing.T) {
	h := New(Config{Keep: time.Minute, MaxBytes: 1 << 20})
	const n = 4*perBlock + 7
	for i := range n {
		h.Add(start.Add(time.Duration(i)*time.Millisecond), Lookup{Line: long(i)})
	}
	for _, limit := range []int{0, 1, 7, 8, perBlock + 7, 3 * perBlock, n + 1} {
		newest := strings.Fields(names(t, h.Query(start, limit)))
		backlog, s := h.Follow(start, limit, 1)
		oldest := strings.Fields(names(t, backlog))
		s.Close()
		want := n
		if limit > 0 {
			want = min(limit, n)
		}
		if len(newest) != want || newest[0] != fmt.Sprintf("%03d", n-1) || newest[want-1] != fmt.Sprintf("%03d", n-want) {
			t.Errorf("limit %d, newest first: %d", limit, len(newest))
		}
		slices.Reverse(newest)
		if !slices.Equal(newest, oldest) {
			t.Errorf("limit %d: not the same the other way round", limit)
		}
	}
}

// The memory must not grow with what has passed through it.
func TestMemoryStaysBounded(t *testing.T) {
	h := New(Config{Keep: time.Hour, MaxBytes: rooms * 4 * blockBytes})
	for i := range 200 * perBlock {
		h.Add(start, Lookup{Line: long(i % 1000)})
	}
	if s := h.Stats(); s.Bytes > 4*blockBytes || s.Bytes < 2*blockBytes || s.Traces < 2*perBlock || cap(h.rooms[ordinary].blocks) > 1024 {
		t.Errorf("%+v, room for %d blocks", s, cap(h.rooms[ordinary].blocks))
	}
}

func TestFollow(t *testing.T) {
	h := New(Config{Keep: time.Minute, MaxBytes: 1 << 20})
	h.Add(start, Lookup{Line: numbered(0)})
	h.Add(start, Lookup{Line: numbered(1)})
	backlog, s := h.Follow(start, 0, 2)
	if got := names(t, backlog); got != "000 001" {
		t.Errorf("backlog %q", got)
	}
	for i := 2; i < 7; i++ {
		h.Add(start, Lookup{Line: numbered(i)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	line, lost, err := s.Next(ctx)
	if err != nil || lost != 3 || names(t, slices.Values([][]byte{line})) != "002" {
		t.Errorf("first: %s, %d lost, %v", line, lost, err)
	}
	line, lost, err = s.Next(ctx)
	if err != nil || lost != 0 || names(t, slices.Values([][]byte{line})) != "003" {
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
			h.Add(start, Lookup{Line: numbered(i % 1000)})
		}
	})
	backlog, s := h.Follow(start, 0, n)
	defer s.Close()
	wg.Wait()
	before := len(strings.Fields(names(t, backlog)))
	if got := before + len(s.queue); got != n {
		t.Errorf("%d before and %d after make %d, want %d", before, len(s.queue), got, n)
	}
}
