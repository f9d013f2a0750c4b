package receive

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// limited returns senders with a clock of the test's, to whom process 1 is in a container,
// processes below 100 in one cgroup, and others in none that is known.
func limited() (*senders, *time.Time) {
	now := came
	s := newSenders()
	s.now = func() time.Time { return now }
	s.of = func(pid int, uid uint32) peer.Process {
		p := peer.Process{PID: pid, UID: uid}
		switch {
		case pid == 1:
			p.Container, p.Cgroup = "c", "/c"
		case pid < 100:
			p.Cgroup = "/user"
		}
		return p
	}
	return s, &now
}

// sends returns how many bytes of a process are taken.
func (s *senders) sends(pid int, uid uint32, bytes int) (taken int) {
	const datagram = 64 << 10
	for range bytes / datagram {
		if _, ok := s.take(origin{pid: pid, uid: uid}, datagram); ok {
			taken += datagram
		}
	}
	return taken
}

// A process may send so much, and others of its cgroup and user no more beside it; a server
// may send more, whatever others send.
func TestRates(t *testing.T) {
	s, now := limited()
	if n := s.sends(2, 7, 100<<20); n != burstOther {
		t.Errorf("at once: %d", n)
	}
	if n := s.sends(3, 7, 100<<20); n != 0 {
		t.Errorf("another process of the cgroup: %d", n)
	}
	if n := s.sends(2, 8, 100<<20); n != burstOther {
		t.Errorf("another user: %d", n)
	}
	if n := s.sends(1, 7, 100<<20); n != 0 {
		t.Errorf("one more, of all together: %d", n)
	}
	s.shows(1, "")
	s.shows(0, "/user")
	if n := s.sends(1, 0, 100<<20); n != burstServer {
		t.Errorf("a server: %d", n)
	}
	if n := s.sends(4, 0, 100<<20); n != burstServer {
		t.Errorf("a server that is known by its cgroup: %d", n)
	}
	*now = now.Add(time.Second)
	if n := s.sends(500, 0, 100<<20); n != burstOther {
		t.Errorf("after a second: %d", n)
	}
	*now = now.Add(2 * keepServer)
	if n := s.sends(1, 0, 100<<20); n != burstOther {
		t.Errorf("a server that has not been seen for long: %d", n)
	}
}

// A process that gets the number of a server that ended is not taken for it, not even if it
// ended before it was looked up. What the server sent last is its own.
func TestNumberOfAServer(t *testing.T) {
	s, now := limited()
	server := peer.Process{PID: 7, UID: 1, Started: now.Add(-time.Hour)}
	as := server
	s.of = func(int, uint32) peer.Process { return as }
	s.shows(7, "")
	from := origin{pid: 7, uid: 1}
	is := func(what string, want peer.Process, serves bool) {
		t.Helper()
		who, _ := s.take(from, 1)
		if who != want || (s.server(who) != nil) != serves {
			t.Errorf("%s: %+v", what, who)
		}
	}
	is("the server", server, true)
	*now = now.Add(time.Second)
	as = peer.Process{PID: 7, UID: 1, Started: *now, Ended: true}
	is("its last words", server, true)
	*now = now.Add(2 * keepEnded)
	as.Started = *now
	is("one that has ended", as, false)
	*now = now.Add(time.Second)
	as = peer.Process{PID: 7, UID: 1, Started: *now}
	is("another", as, false)
}

// The tables have a bound, however many send.
func TestManySenders(t *testing.T) {
	s, now := limited()
	taken := 0
	for pid := range 20 * maxSenders {
		taken += s.sends(1000+pid, uint32(pid), 64<<10)
		s.shows(1000+pid, "")
		s.shows(0, fmt.Sprint("/", pid))
		if pid%1000 == 0 {
			*now = now.Add(time.Second)
		}
	}
	if most := burstOthers + 21*rateOthers; taken > most {
		t.Errorf("%d bytes are taken of many, expected %d at most", taken, most)
	}
	for _, n := range []int{len(s.known), len(s.groups), len(s.byPID), len(s.byCgroup)} {
		if n > maxSenders {
			t.Errorf("%d are remembered", n)
		}
	}
}

// What waits has a bound of memory, which is free again when it is taken.
func TestQueueHasABudget(t *testing.T) {
	r := newReceiver(queued)
	q := slowQuery()
	q.V, q.Record = trace.Version, trace.KindQuery
	q.Flow, q.TraceID = trace.Flow{1}, trace.TraceID{1}
	q.QName, q.Upstreams = "example.com.", slices.Repeat(q.Upstreams, 1)[:60]
	line := q.AppendJSON(nil)
	r.Shows(1, "")
	for range 1000 {
		r.datagram(line, 0, origin{pid: 1, came: came})
	}
	s := r.Stats()
	if s.Received == 0 || s.Refused[ReasonQueue] == 0 || s.read() != 1000-s.Refused[ReasonRate] && s.Refused[ReasonRate] == 0 {
		t.Errorf("%+v, %v", s, r.LastError())
	}
	if w := r.waiting.Load(); w > queuedBytes || w < queuedBytes/2 {
		t.Errorf("%d bytes wait", w)
	}
	for range s.Received {
		(<-r.Records()).Taken()
	}
	if w := r.waiting.Load(); w != 0 {
		t.Errorf("%d bytes wait of nothing", w)
	}
	// One that the kernel truncated is refused whole.
	r.datagram(line, unix.MSG_TRUNC, origin{pid: 1, came: came})
	if got := r.Stats().Refused[ReasonSize]; got != 1 {
		t.Errorf("%d are refused for their size", got)
	}
}

// Datagrams of many short lines, or of nothing, take no more time than those of records:
// they count as more than their bytes, and none goes uncounted.
func TestManyLines(t *testing.T) {
	for name, tc := range map[string]struct {
		datagram  string
		datagrams int
		most      uint64 // lines that are read
	}{
		"one byte":         {"x", 100_000, burstOther / leastLine},
		"nothing":          {"", 100_000, burstOther / leastLine},
		"an empty line":    {"\n", 100_000, burstOther / leastLine},
		"short lines":      {strings.Repeat("{\n", 100), 1000, burstOther / leastLine},
		"many short lines": {strings.Repeat("{\n", 32_000), 100, 0},
	} {
		r := newReceiver(queued)
		s, _ := limited()
		r.senders = s
		for range tc.datagrams {
			r.datagram([]byte(tc.datagram), 0, origin{pid: 2, uid: 7, came: came})
		}
		got, all := r.Stats(), uint64(tc.datagrams*max(1, strings.Count(tc.datagram, "\n")))
		if got.Refused[ReasonMalformed] > tc.most || got.Refused[ReasonMalformed]+got.Refused[ReasonRate] != all {
			t.Errorf("%s: %v of %d", name, got.Refused, all)
		}
	}
}
