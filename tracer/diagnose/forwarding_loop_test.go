package diagnose

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// hop is a query from one place to a server at another, which arrived there.
func hop(from, to uint32, client, server string) *trace.Exchange {
	ex := &trace.Exchange{
		Outcome: trace.OutcomeUnanswered, ServerIP: netip.MustParseAddr(server), ServerPort: 53, Transmissions: 1,
		Path: trace.PathOf(
			trace.Sighting{Device: trace.Device{NetNS: from, IfName: "eth0"}, Message: trace.MessageQuery, Direction: trace.DirectionTX},
			trace.Sighting{Device: trace.Device{NetNS: to, IfName: "eth0"}, Offset: 10, Message: trace.MessageQuery, Direction: trace.DirectionRX},
		),
		Milestones: trace.Milestones{Query: trace.Progress{Left: trace.MilestoneAt(0), Arrived: trace.MilestoneAt(1)}},
	}
	ex.QName, ex.QType, ex.Protocol, ex.ClientIP = "a.example.", "A", "udp", netip.MustParseAddr(client)
	return ex
}

// chainOf is a lookup whose server asked the next, and so on.
func chainOf(rcode string, hops ...*trace.Exchange) *trace.Trace {
	t := &trace.Trace{QName: "a.example.", QType: "A", Exchange: hops[0], Outcome: trace.OutcomeUnanswered}
	if rcode != "" {
		hops[0].Outcome, hops[0].RCode, hops[0].Duration = trace.OutcomeAnswered, rcode, trace.SecondsPtr(1)
		t.Outcome, t.RCode = trace.OutcomeAnswered, rcode
	}
	below := &t.Upstreams
	for _, ex := range hops[1:] {
		*below = []trace.Upstream{{Exchange: ex, Join: trace.JoinExact}}
		below = &(*below)[0].Upstreams
	}
	return t
}

// A question that comes back to its server twice, and fails, goes round. One that comes back
// once may be for another block of that server; a proxy asks for the address that its client
// asked for; and what is answered does not go round.
func TestForwardingLoopIsNoProxyAndNoView(t *testing.T) {
	const client, pod, self, other = 1, 2, 3, 4
	first := func() *trace.Exchange { return hop(client, self, "10.0.0.1", "10.0.0.3") }
	again := func() *trace.Exchange { return hop(self, self, "10.0.0.3", "10.0.0.3") }
	another := func() *trace.Exchange {
		ex := again()
		ex.QName = "target.example."
		return ex
	}
	later := func(after time.Duration) *trace.Exchange {
		ex := again()
		ex.Time = ex.Time.Add(after)
		return ex
	}
	lost := func() *trace.Exchange {
		ex := again()
		ex.LostEvents = 1
		return ex
	}
	for _, tc := range []struct {
		name string
		tr   *trace.Trace
		want bool
	}{
		{"itself, twice", chainOf("SERVFAIL", first(), again(), again()), true},
		{"nobody answers", chainOf("", first(), again(), again()), true},
		{"each other", chainOf("SERVFAIL", first(), hop(self, other, "10.0.0.3", "10.0.0.4"), hop(other, self, "10.0.0.4", "10.0.0.3"), hop(self, other, "10.0.0.3", "10.0.0.4"), hop(other, self, "10.0.0.4", "10.0.0.3")), true},
		{"another block of the server, whose upstream is silent", chainOf("SERVFAIL", first(), again(), hop(self, other, "10.0.0.3", "10.0.0.9")), false},
		{"answered", chainOf("NOERROR", first(), again(), again()), false},
		{"other names", chainOf("SERVFAIL", first(), another(), again()), false},
		{"others are missing", chainOf("SERVFAIL", first(), lost(), lost()), true},
		{"asked itself anew each time that it had no answer (plugin loop)", chainOf("", again(), later(time.Second), later(4*time.Second)), false},
		{"a proxy in between", chainOf("", hop(client, pod, "10.0.0.1", "10.0.0.9"), hop(pod, other, "10.0.0.1", "10.0.0.9"), hop(other, self, "10.0.0.1", "10.0.0.9")), false},
		{"a pod that asks itself", chainOf("", again()), false},
	} {
		found := New().Trace(tc.tr)
		if got := len(found) == 1 && found[0].Code == ForwardingLoop; got != tc.want {
			t.Errorf("%s: %+v", tc.name, found)
		}
	}
}

// Where no packets of what a server asks itself were seen, its record tells; not where it asks
// for something else, or the packets show that it does not go round.
func TestOwnUpstreamByTheRecord(t *testing.T) {
	lookup := func(rcode, upstream string, change func(*trace.Upstream)) *trace.Trace {
		tr := chainOf(rcode, hop(1, 3, "10.0.0.1", "10.0.0.3"))
		tr.Query = &trace.Query{Outcome: trace.OutcomeAnswered}
		tr.Query.RCode = rcode
		u := trace.Upstream{Join: trace.JoinNone, Attempt: &trace.Attempt{Attempt: 1, Address: upstream, Outcome: trace.OutcomeOK}}
		if change != nil {
			change(&u)
		}
		tr.Upstreams = []trace.Upstream{u}
		return tr
	}
	for _, tc := range []struct {
		name string
		t    *trace.Trace
		want bool
	}{
		{"itself", lookup("REFUSED", "10.0.0.3:53", nil), true},
		{"answered", lookup("NOERROR", "10.0.0.3:53", nil), false},
		{"another port", lookup("REFUSED", "10.0.0.3:5353", nil), false},
		{"another address", lookup("REFUSED", "10.0.0.4:53", nil), false},
		{"another name", lookup("REFUSED", "10.0.0.3:53", func(u *trace.Upstream) { u.Attempt.QName = "target.example." }), false},
		{"seen, once", lookup("REFUSED", "10.0.0.3:53", func(u *trace.Upstream) { u.Exchange = hop(3, 3, "10.0.0.3", "10.0.0.3") }), false},
	} {
		f, ok := forwardingLoop(tc.t)
		if ok != tc.want || ok && (!f.InDoubt || f.Summary != "The server's upstream 10.0.0.3:53 is the server itself.") {
			t.Errorf("%s: %v, %+v", tc.name, ok, f)
		}
	}
}
