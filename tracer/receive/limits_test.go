package receive

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

var came = time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC)

// slowQuery is a record as large and slow as CoreDNS makes one, just over when it came.
func slowQuery() *trace.Query {
	took := trace.Seconds(6 * time.Second)
	q := &trace.Query{
		Header: trace.Header{Time: came.Add(-took.Duration() - 100*time.Millisecond)},
		DNS: trace.DNS{QName: strings.Repeat(`\255.`, 127), QType: "TYPE65280", QClass: "IN", Protocol: "udp", RequestSize: 65535, BufSize: 65535,
			Duration: &took, ClientIP: netip.MustParseAddr("fe80::1%eth0")},
		Zone: ".", Cache: trace.CacheMiss, AnsweredBy: "forward", Outcome: trace.OutcomeError, Error: strings.Repeat("e", 512),
	}
	for i := range 128 {
		above := i / 2
		h := trace.Hop{Plugin: "forward", Start: trace.Seconds(i), Duration: &took}
		if i > 0 {
			h.Parent = &above
		}
		q.Hops = append(q.Hops, h)
		q.Upstreams = append(q.Upstreams, trace.Attempt{Attempt: i + 1, Address: "[2001:db8::1]:53", Start: trace.Seconds(i), Duration: &took,
			Outcome: trace.OutcomeTimeout, Error: strings.Repeat("e", 512), Plugin: "forward", QName: "target.example."})
	}
	return q
}

// What CoreDNS writes is taken, and one step beyond each limit is not.
func TestCheck(t *testing.T) {
	if err := check(slowQuery(), came); err != nil {
		t.Error(err)
	}
	unanswered := slowQuery()
	unanswered.DNS.Duration = nil
	if err := check(unanswered, came); err != nil {
		t.Error(err)
	}
	r := &trace.Refresh{Header: trace.Header{Time: came.Add(-6 * time.Second)}, DNS: slowQuery().DNS, Cause: "prefetch", Hops: slowQuery().Hops}
	if err := check(r, came); err != nil {
		t.Error(err)
	}
	shift := func(d time.Duration) func(*trace.Query) { return func(q *trace.Query) { q.Time = q.Time.Add(d) } }
	seconds := func(d time.Duration) *trace.Seconds { return trace.SecondsPtr(d) }
	negative, self := -1, 3
	for reason, changes := range map[string][]func(*trace.Query){
		"": {
			func(q *trace.Query) { q.Time = came.Add(maxOff - 6*time.Second - time.Millisecond) },
			shift(-maxOff + 200*time.Millisecond),
			func(q *trace.Query) { q.QName = "." },
			func(q *trace.Query) { q.Zone = "" },
			func(q *trace.Query) { q.Hops[1].Duration = nil },
		},
		ReasonTime: {
			shift(-maxOff), shift(time.Hour), shift(-time.Hour),
			func(q *trace.Query) { q.Time = time.Unix(0, 0) },
			func(q *trace.Query) { q.Time = came.AddDate(5000, 0, 0) },
			func(q *trace.Query) { q.Time = came.Add(maxOff + time.Millisecond) },
		},
		ReasonDuration: {
			shift(maxOff + 200*time.Millisecond), // it would end when it has not
			func(q *trace.Query) { q.DNS.Duration = seconds(-1) },
			func(q *trace.Query) { q.DNS.Duration = seconds(time.Hour) },
			func(q *trace.Query) { q.Hops[5].Start = -1 },
			func(q *trace.Query) { q.Hops[5].Start = trace.Seconds(12 * time.Second) },
			func(q *trace.Query) { q.Upstreams[5].Start, q.Upstreams[5].Duration = 1<<62, seconds(1<<62) },
			func(q *trace.Query) { q.Upstreams[5].Duration = seconds(12 * time.Second) },
		},
		ReasonField: {
			func(q *trace.Query) { q.QName = "" },
			func(q *trace.Query) { q.QName = strings.Repeat(`\255.`, 128) },
			func(q *trace.Query) { q.QName = strings.Repeat("a", 64) + "." },
			func(q *trace.Query) { q.Zone = strings.Repeat("a.", 128) },
			func(q *trace.Query) { q.Error = strings.Repeat("e", maxText+1) },
			func(q *trace.Query) { q.RequestSize = -1 },
			func(q *trace.Query) { q.BufSize = maxSize + 1 },
			func(q *trace.Query) { q.ResponseSize = &negative },
			func(q *trace.Query) { q.Protocol = strings.Repeat("p", maxWord+1) },
			func(q *trace.Query) { q.ClientIP = netip.MustParseAddr("fe80::1%" + strings.Repeat("z", maxZone+1)) },
			func(q *trace.Query) { q.ServerIP = netip.MustParseAddr("fe80::1%" + strings.Repeat("z", maxZone+1)) },
			func(q *trace.Query) { q.Hops = make([]trace.Hop, maxSpans+1) },
			func(q *trace.Query) { q.Upstreams = make([]trace.Attempt, maxSpans+1) },
			func(q *trace.Query) { q.Hops[3].Parent = &self },
			func(q *trace.Query) { q.Hops[3].Parent = &negative },
			func(q *trace.Query) { q.Hops[3].Plugin = strings.Repeat("p", maxWord+1) },
			func(q *trace.Query) { q.Upstreams[3].Address = strings.Repeat("a", maxText+1) },
			func(q *trace.Query) { q.Upstreams[3].QName = strings.Repeat("a.", 128) },
		},
	} {
		for i, change := range changes {
			q := slowQuery()
			change(q)
			err := check(q, came)
			if got := reasonOf(err); err != nil && got != reason || (err == nil) != (reason == "") {
				t.Errorf("%s, %d: %v", reason, i, err)
			}
		}
	}
}

// A record that waited in the socket is as old as when it came, not as when it is read.
func TestArrivalIsTheKernels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	conn, err := unixsocket.ListenPacket(path, "--listen", unixsocket.Mine, setOptions)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	before := time.Now()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	time.Sleep(200 * time.Millisecond)
	buf, control := make([]byte, 10), make([]byte, controlSize)
	_, n, _, _, err := conn.ReadMsgUnix(buf, control)
	if err != nil {
		t.Fatal(err)
	}
	const clocks = 20 * time.Millisecond // the kernel's coarse clock and Go's
	if from := originOf(control[:n]); from.came.Before(before.Add(-clocks)) || from.came.After(after.Add(clocks)) {
		t.Errorf("it came %s after it was sent", from.came.Sub(before))
	}
}
