package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// passed is the nth trace, with a name.
func passed(n, name int) []byte {
	t := &trace.Trace{Header: trace.Header{Time: start.Add(time.Duration(n)), TraceID: trace.TraceID{1}}, QName: fmt.Sprintf("n%03d.", name)}
	return t.AppendJSON(nil)
}

// What replaces a trace takes its place for all readers, also where the two are in
// different blocks, and where it was replaced twice.
func TestReplacedTraces(t *testing.T) {
	h := New(Config{Keep: time.Hour, MaxBytes: 1 << 20})
	h.Add(start, Lookup{Line: passed(0, 0)})
	h.Add(start, Lookup{Line: passed(1, 1)})
	h.rooms[ordinary].seal()
	h.Add(start, Lookup{Line: passed(2, 2)})
	h.Add(start, Lookup{Line: passed(0, 100), Replaces: true})
	h.rooms[ordinary].seal()
	h.Add(start, Lookup{Line: passed(2, 102), Replaces: true})
	h.Add(start, Lookup{Line: passed(0, 200), Replaces: true})
	for limit, want := range map[int]string{0: "200 102 001", 2: "200 102", 1: "200"} {
		if got := names(t, h.Query(start, limit)); got != want {
			t.Errorf("newest first, limit %d: %s, want %s", limit, got, want)
		}
	}
	for limit, want := range map[int]string{0: "001 102 200", 2: "102 200"} {
		backlog, s := h.Follow(start, limit, 1)
		if got := names(t, backlog); got != want {
			t.Errorf("oldest first, limit %d: %s, want %s", limit, got, want)
		}
		s.Close()
	}
}
