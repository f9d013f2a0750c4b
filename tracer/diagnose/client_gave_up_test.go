package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A client that closed its socket gave up only if nothing shows that it went on: it may
// have gone to TCP, or have the answer of another server.
func TestClientThatWentOn(t *testing.T) {
	const ms = time.Millisecond
	// late is a response that found its client's socket closed 300 ms after the query.
	late := func() *trace.Exchange {
		ex := asked()
		ex.QType, ex.ClientPort, ex.ID, ex.Outcome = "AAAA", 4000, 8, trace.OutcomeDropped
		ex.Drops = []trace.Drop{{
			Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", NetNS: inodes["client"], NetNSName: "client", Offset: trace.Seconds(300 * ms),
		}}
		return ex
	}
	other := func(start, took time.Duration, change func(*trace.Exchange)) *trace.Exchange {
		ex := asked()
		ex.Time = ex.Time.Add(start)
		ex.QType, ex.ClientPort, ex.ID, ex.Outcome, ex.RCode, ex.Duration = "A", 4000, 7, trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(took)
		change(ex)
		return ex
	}
	asIs := func(*trace.Exchange) {}
	truncated := func(ex *trace.Exchange) { ex.Truncated = true }
	overTCP := func(ex *trace.Exchange) { ex.Protocol, ex.ClientPort = "tcp", 4001 }
	same := func(ex *trace.Exchange) { ex.QType, ex.ID = "AAAA", 8 }
	for _, tc := range []struct {
		name   string
		before *trace.Exchange
		gaveUp bool
	}{
		{"nothing else is known", nil, true},
		{"its A was answered", other(0, ms, asIs), true},
		{"its A was truncated", other(0, ms, truncated), false},
		{"A of another socket was truncated", other(0, ms, func(ex *trace.Exchange) { truncated(ex); ex.ClientPort = 4002 }), true},
		{"its A was truncated, later", other(0, 400*ms, truncated), true},
		{"it asks over TCP", other(2*ms, 5*time.Second, overTCP), false},
		{"it asked over TCP before", other(-100*ms, ms, overTCP), true},
		{"it asks over TCP later", other(time.Second, ms, overTCP), true},
		{"another server answered", other(0, ms, same), false},
		{"another server answered later", other(0, 400*ms, same), true},
		{"another name", other(0, ms, func(ex *trace.Exchange) { truncated(ex); ex.QName = "other.example." }), true},
	} {
		d := New()
		if tc.before != nil {
			d.Trace(&trace.Trace{Header: tc.before.Header, Exchange: tc.before, Outcome: tc.before.Outcome})
		}
		ex := late()
		found := d.Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if got := len(found) == 1 && found[0].Code == ClientGaveUp; got != tc.gaveUp || !tc.gaveUp && len(found) != 0 {
			t.Errorf("%s: %+v", tc.name, found)
		}
	}
}

// What the server waited for is said with it, if that was most of the time.
func TestClientGaveUpSaysWhatTookSoLong(t *testing.T) {
	attempt := func(address string, start, took time.Duration) trace.Upstream {
		return trace.Upstream{Attempt: &trace.Attempt{Address: address, Start: trace.Seconds(start), Duration: trace.SecondsPtr(took), Outcome: trace.OutcomeOK}}
	}
	for _, tc := range []struct {
		upstreams []trace.Upstream
		want      string
	}{
		{nil, "closed its socket."},
		{[]trace.Upstream{attempt("10.0.0.9:53", 0, 100*time.Millisecond)}, "closed its socket."},
		{[]trace.Upstream{attempt("10.0.0.9:53", 0, 290*time.Millisecond)}, "; CoreDNS waited 290 ms of that for the upstream 10.0.0.9:53."},
		{[]trace.Upstream{attempt("10.0.0.9:53", 0, 200*time.Millisecond), attempt("10.0.0.8:53", 10*time.Millisecond, 200*time.Millisecond)}, "; CoreDNS waited 210 ms of that for its upstreams."},
	} {
		ex := asked()
		ex.Outcome = trace.OutcomeDropped
		ex.Drops = []trace.Drop{{
			Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", NetNS: inodes["client"], NetNSName: "client", Offset: trace.Seconds(300 * time.Millisecond),
		}}
		found := clientGaveUp(newMemory(), &trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, Query: &trace.Query{}, Upstreams: tc.upstreams})
		if len(found) != 1 || !strings.HasSuffix(found[0].Summary, tc.want) {
			t.Errorf("%+v, want %q", found, tc.want)
		}
	}
}

// Of a client that asked several times, the first response that it was gone for counts.
func TestClientGaveUpBeforeTheFirstResponse(t *testing.T) {
	ex := asked()
	ex.Outcome, ex.Transmissions = trace.OutcomeDropped, 3
	for _, at := range []time.Duration{1500, 1830, 2200} {
		ex.Drops = append(ex.Drops, trace.Drop{
			Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", NetNS: inodes["client"], NetNSName: "client", Offset: trace.Seconds(at * time.Millisecond),
		})
	}
	found := clientGaveUp(newMemory(), &trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
	if len(found) != 1 || !strings.HasPrefix(found[0].Summary, "The response came 1.50 s after the query") {
		t.Errorf("%+v", found)
	}
}
