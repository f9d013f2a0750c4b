package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// recordOf is what a server records of a query of the pod.
func recordOf(name string, id uint16, after time.Duration) *trace.Query {
	q := &trace.Query{}
	q.Time = wall(0).Add(after)
	q.QName, q.QType, q.QClass, q.Protocol, q.ID = name, "A", "IN", "udp", id
	q.ClientIP, q.ClientPort = pod.Addr(), pod.Port()
	return q
}

// The exchange of a record is under way from its first packet until it is passed on, and
// again while a repeated query goes on in it.
func TestUnderWay(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "A.example.", 7))
	for _, tc := range []struct {
		name string
		id   uint16
		at   time.Duration
		want bool
	}{
		{"a.example.", 7, time.Millisecond, true}, {"a.example.", 8, time.Millisecond, false}, {"b.example.", 7, time.Millisecond, false},
		{"a.example.", 7, -time.Second, false}, {"a.example.", 7, time.Minute, false}, {`a\000.`, 7, time.Millisecond, false},
	} {
		if got := f.table.UnderWay(recordOf(tc.name, tc.id, tc.at)); got != tc.want {
			t.Errorf("%s %d after %s: %v", tc.name, tc.id, tc.at, got)
		}
	}
	f.after(5 * time.Second)
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "a.example.", 7))
	f.after(7 * time.Second)
	if !f.table.UnderWay(recordOf("a.example.", 7, time.Millisecond)) || len(f.got) != 0 {
		t.Error("it was repeated, and is over")
	}
	f.after(2 * time.Second)
	if f.table.UnderWay(recordOf("a.example.", 7, time.Millisecond)) || len(f.got) != 1 {
		t.Error("it was passed on, and is under way")
	}
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "a.example.", 7))
	if !f.table.UnderWay(recordOf("a.example.", 7, 14*time.Second)) {
		t.Error("it goes on, and is not under way")
	}
}

// Whose response was rejected is known while it is open.
func TestRejecting(t *testing.T) {
	f := newFeed(t)
	from, until := wall(0).Add(-time.Millisecond), wall(0).Add(time.Millisecond)
	is := func() bool { return f.table.Rejecting(server, "a.example.", "A", from, until) }
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "a.example.", 7))
	if is() {
		t.Error("nothing came")
	}
	f.back(server, response(t, "a.example.", 8, dns.RcodeSuccess))
	if !is() {
		t.Error("a response with another ID came")
	}
	for _, other := range []bool{
		f.table.Rejecting(service, "a.example.", "A", from, until), f.table.Rejecting(server, "b.example.", "A", from, until),
		f.table.Rejecting(server, "a.example.", "AAAA", from, until), f.table.Rejecting(server, "a.example.", "A", until, until.Add(time.Second)),
	} {
		if other {
			t.Error("the response was to another query")
		}
	}
	f.after(10 * time.Second)
	if is() || len(f.got) != 1 {
		t.Error("it was passed on")
	}
	f.after(10 * time.Second)
	if len(f.table.refused) != 0 {
		t.Error("it is over, and remembered")
	}
}

// What a server asks several others at once is known while one of them has not answered.
func TestAsking(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, server, query(t, "a.example.", 7))
	f.packet(capture.TX, podNS, 2, pod, netip.AddrPortFrom(server.Addr().Next(), 53), query(t, "a.example.", 8))
	f.back(server, response(t, "a.example.", 7, dns.RcodeSuccess))
	at, from, until := trace.Place{NetNS: podNS}, wall(0).Add(-time.Millisecond), wall(0).Add(time.Millisecond)
	for _, tc := range []struct {
		name        string
		at          trace.Place
		qname       string
		from, until time.Time
		want        bool
	}{
		{"the other server is silent", at, "a.example.", from, until, true},
		{"another place", trace.Place{NetNS: podNS + 1}, "a.example.", from, until, false},
		{"another name", at, "b.example.", from, until, false},
		{"another time", at, "a.example.", until, until.Add(time.Second), false},
	} {
		if got := f.table.Asking(tc.at, 0, tc.qname, "A", tc.from, tc.until); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	f.after(10 * time.Second)
	f.after(10 * time.Second)
	if f.table.Asking(at, 0, "a.example.", "A", from, until) || f.table.alike.Len() != 0 {
		t.Error("both are over, and one is under way or remembered")
	}
}
