package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// inodes are the namespaces of these tests.
var inodes = map[string]uint32{"client": 1, "node": 2, "server": 3}

// see adds a sighting to an exchange, in a namespace with one device, and returns
// the milestone that it shows.
func see(ex *trace.Exchange, message, direction, namespace string, offset time.Duration) trace.Milestone {
	s := trace.Sighting{
		Device:  trace.Device{Node: ex.Node, NetNS: inodes[namespace], NetNSName: namespace, IfIndex: 2, IfName: "eth0"},
		Message: message, Direction: direction, Offset: trace.Seconds(offset),
	}
	if direction == trace.DirectionDelivered || direction == trace.DirectionRead {
		s.IfIndex, s.IfName = 0, ""
	}
	ex.Path.Append(s)
	return trace.MilestoneAt(ex.Path.Len() - 1)
}

// asked is a query that left its client at 10.0.0.2 for 10.0.0.1.
func asked() *trace.Exchange {
	ex := &trace.Exchange{ServerIP: netip.MustParseAddr("10.0.0.1"), ServerPort: 53, Outcome: trace.OutcomeUnanswered, Transmissions: 1}
	ex.Time, ex.QName, ex.QType, ex.Protocol = epoch, "a.example.", "A", "udp"
	ex.ClientIP, ex.ClientPort = netip.MustParseAddr("10.0.0.2"), 40000
	ex.Server = &trace.Endpoint{Process: "coredns", PID: 71}
	ex.Milestones.Query.Left = see(ex, trace.MessageQuery, trace.DirectionTX, "client", 0)
	return ex
}

// What is said of a missing response follows from how far the messages came, and
// from nothing that cannot be seen here.
func TestMissingResponse(t *testing.T) {
	const ms = time.Millisecond
	arrive := func(ex *trace.Exchange) {
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", ms)
	}
	read := func(ex *trace.Exchange) {
		arrive(ex)
		ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", 2*ms)
	}
	answer := func(ex *trace.Exchange) {
		read(ex)
		ex.Milestones.Response.Left = see(ex, trace.MessageResponse, trace.DirectionTX, "server", 3*ms)
	}
	unseen := func(ex *trace.Exchange) {
		ex.Milestones.Response.Arrived, ex.Milestones.Response.Read = trace.NotObservable, trace.NotObservable
	}
	for _, tc := range []struct {
		name   string
		seen   func(*trace.Exchange, *trace.Trace)
		code   string
		says   string
		silent string // must not be said
	}{
		{"only that it left", func(*trace.Exchange, *trace.Trace) {}, NoResponseSeen, "nothing shows why; the query was last seen at device eth0 in namespace client", "never recorded"},
		{"delivered, never read", func(ex *trace.Exchange, _ *trace.Trace) { arrive(ex) }, NoResponseSeen, "in the socket of coredns (process 71) in namespace server, which never read it", "nothing shows why"},
		{"delivered, and reading is not observable", func(ex *trace.Exchange, _ *trace.Trace) {
			arrive(ex)
			ex.Milestones.Query.Read = trace.NotObservable
		}, NoResponseSeen, "nothing shows why; the query was last seen delivered to a socket", "never read"},
		{"read", func(ex *trace.Exchange, _ *trace.Trace) { read(ex) }, NoResponseSeen, "coredns (process 71) read the query in namespace server", "nothing shows why"},
		{"response on its way", func(ex *trace.Exchange, _ *trace.Trace) { answer(ex) }, ResponseLost, "did not reach the client; the response was last seen", ""},
		{"response on its way, arrival is not observable", func(ex *trace.Exchange, _ *trace.Trace) { answer(ex); unseen(ex) }, NoResponseSeen, "whether it arrived cannot be seen", "did not reach"},
		{"recorded as answered, arrival is not observable", func(ex *trace.Exchange, t *trace.Trace) {
			unseen(ex)
			t.Query = &trace.Query{Outcome: trace.OutcomeAnswered}
		}, NoResponseSeen, "", "did not reach"},
		{"a response that was rejected", func(ex *trace.Exchange, _ *trace.Trace) {
			read(ex)
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedPort, Src: netip.MustParseAddrPort("10.0.0.1:5353"), RCode: "NOERROR", Size: 60, Offset: trace.Seconds(3 * ms)}}
		}, UnexpectedSource, "got the response from port 5353", "No response was seen"},
		{"a response of another server", func(ex *trace.Exchange, _ *trace.Trace) {
			read(ex)
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedAddress, Src: netip.MustParseAddrPort("10.0.0.9:53"), RCode: "NOERROR", Size: 60}}
		}, UnexpectedSource, "The client asked 10.0.0.1:53, got the response from 10.0.0.9:53", "translat"},
		{"a response that was not translated back", func(ex *trace.Exchange, _ *trace.Trace) {
			read(ex)
			port := uint16(5353)
			ex.NAT = &trace.NAT{ServerIP: netip.MustParseAddr("10.0.0.9"), ServerPort: &port, Source: trace.NATConntrack}
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedAddress, Src: netip.MustParseAddrPort("10.0.0.9:5353"), RCode: "NOERROR", Size: 60}}
		}, UnexpectedSource, "The translation of 10.0.0.1:53 was not undone", ""},
		{"one of another server, and one with another ID", func(ex *trace.Exchange, _ *trace.Trace) {
			read(ex)
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedAddress, Src: netip.MustParseAddrPort("10.0.0.9:53")}, {Why: trace.RejectedID, Src: netip.MustParseAddrPort("10.0.0.1:53")}}
		}, ResponseRejected, "wrong DNS ID", ""},
		{"not recorded, and not arrived", func(_ *trace.Exchange, t *trace.Trace) { t.Gaps = []string{trace.GapNotRecorded} }, QueryNeverArrived, "did not reach CoreDNS", ""},
		{"not recorded, and arrival is not observable", func(ex *trace.Exchange, t *trace.Trace) {
			ex.Milestones.Query.Arrived = trace.NotObservable
			t.Gaps = []string{trace.GapNotRecorded}
		}, NoResponseSeen, "nothing shows why", "did not reach"},
		{"a copy was dropped, the query arrived", func(ex *trace.Exchange, _ *trace.Trace) {
			read(ex)
			ex.Outcome = trace.OutcomeDropped
			ex.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: "OTHERHOST", Where: "ip_rcv_core", NetNS: 2, NetNSName: "node", IfName: "veth1"}}
		}, NoResponseSeen, "read the query", ""},
		{"its socket had no room", func(ex *trace.Exchange, _ *trace.Trace) {
			arrive(ex)
			ex.Outcome = trace.OutcomeDropped
			ex.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: "SOCKET_RCVBUFF", Where: "udp_queue_rcv_one_skb", NetNS: inodes["server"], NetNSName: "server", IfName: "eth0", Offset: trace.Seconds(2 * ms)}}
		}, DroppedReceiveBuffer, "no room for", "never read"},
		{"its connection was refused", func(ex *trace.Exchange, tr *trace.Trace) {
			ex.Protocol, ex.QName, tr.QName = "tcp", "", ""
			ex.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: "NO_SOCKET", Where: "tcp_v4_rcv", NetNS: inodes["server"], NetNSName: "server", IfName: "eth0", Offset: trace.Seconds(ms)}}
			ex.Reset = &trace.Reset{Src: netip.MustParseAddrPort("10.0.0.1:53"), Offset: trace.Seconds(2 * ms)}
		}, DroppedNoSocket, "nothing listens there in namespace server", "firewall"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := asked()
			tr := &trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome}
			tc.seen(ex, tr)
			found := New().Trace(tr)
			if len(found) != 1 || found[0].Code != tc.code {
				t.Fatalf("%+v, want %s", found, tc.code)
			}
			if len(found[0].Summary) > 2*77 || len(found[0].Advice) > 2*65 {
				t.Errorf("too long: %+v", found[0])
			}
			all := found[0].Summary + "\n" + strings.Join(found[0].Evidence, "\n")
			if !strings.Contains(found[0].Summary, tc.says) || tc.silent != "" && strings.Contains(all, tc.silent) {
				t.Errorf("%s\nwant %q, and not %q", all, tc.says, tc.silent)
			}
		})
	}
}

// With reading observed, how long a query waited in its socket is known without the
// server's record.
func TestWaitWithoutARecord(t *testing.T) {
	for _, tc := range []struct {
		wait time.Duration
		want int
	}{{time.Millisecond, 0}, {time.Second, 1}} {
		ex := asked()
		ex.Outcome, ex.RCode = trace.OutcomeAnswered, "NOERROR"
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
		ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", time.Millisecond+tc.wait)
		ex.Duration = trace.SecondsPtr(tc.wait + 2*time.Millisecond)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if len(found) != tc.want {
			t.Fatalf("waited %s: %+v", tc.wait, found)
		}
		if tc.want == 1 && (found[0].Code != ServerOverloaded || !slices.Contains(found[0].Evidence, "coredns (process 71) read it from its socket 1.00 s later, as the kernel saw")) {
			t.Errorf("%+v", found[0])
		}
	}
}

// A drop is named with its program and its node where records of more than one node
// are at hand, and the others of the exchange are quoted.
func TestDropsOfTwoNodes(t *testing.T) {
	ex := asked()
	ex.Node, ex.Outcome, ex.Transmissions = "node-1", trace.OutcomeDropped, 2
	ex.Drops = []trace.Drop{
		{Message: trace.MessageQuery, Reason: "NETFILTER_DROP", Where: "nft_do_chain", Node: "node-1", NetNS: 1, NetNSName: "client", IfName: "eth0", Offset: 1},
		{Message: trace.MessageQuery, Reason: "TC_INGRESS", Where: "sch_handle_ingress", BPF: "tc ingress", Node: "node-2", NetNS: 1, IfName: "lxc1", Offset: 3},
	}
	again := ex.Path.At(0)
	again.Offset = 2
	ex.Path.Append(again)
	found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
	if got := codesOf(found); got != DroppedByNetfilter+" "+DroppedByBPF {
		t.Fatalf("%s: %+v", got, found)
	}
	if want := "An eBPF program (tc ingress) dropped the client's second query in namespace 1 of node node-2, at device lxc1."; found[1].Summary != want {
		t.Errorf("%s, want %s", found[1].Summary, want)
	}
	if all := strings.Join(found[1].Evidence, "\n"); !strings.Contains(all, "reason NETFILTER_DROP, in nft_do_chain, in namespace client of node node-1") {
		t.Errorf("the first drop is not quoted: %s", all)
	}
}

// A response that finds the socket closed is the client's doing only in the client's
// place: nodes give namespaces the same numbers.
func TestGaveUpOnlyWhereTheClientIs(t *testing.T) {
	for node, want := range map[string]string{"": ClientGaveUp, "other": DroppedNoSocket} {
		ex := asked()
		ex.Outcome = trace.OutcomeDropped
		ex.Drops = []trace.Drop{{Message: trace.MessageResponse, Reason: "NO_SOCKET", Where: "__udp4_lib_rcv", Node: node, NetNS: 1, Offset: trace.Seconds(time.Second)}}
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if len(found) != 1 || found[0].Code != want {
			t.Errorf("on node %q: %+v, want %s", node, found, want)
		}
	}
}

// An upstream that sent what could not be taken did answer, and so did one whose
// answer was lost; a query whose response could not be seen to arrive proves nothing.
func TestUpstreamThatDidNotOnlyKeepSilent(t *testing.T) {
	timedOut := &trace.Attempt{Attempt: 1, Address: "10.0.0.1:53", Outcome: trace.OutcomeTimeout}
	for _, tc := range []struct {
		name    string
		seen    func(*trace.Exchange)
		attempt *trace.Attempt
		says    string
	}{
		{"rejected, no record", func(ex *trace.Exchange) { ex.Rejected = []trace.Rejection{{Why: trace.RejectedQuestion}} }, nil, "answered (wrong question)"},
		{"silent", func(*trace.Exchange) {}, timedOut, "did not answer"},
		{"silent, no record", func(*trace.Exchange) {}, nil, "did not answer"},
		{"rejected", func(ex *trace.Exchange) { ex.Rejected = []trace.Rejection{{Why: trace.RejectedID}} }, timedOut, "rejected what"},
		{"lost", func(ex *trace.Exchange) { see(ex, trace.MessageResponse, trace.DirectionRX, "node", time.Millisecond) }, timedOut, "did not reach the server"},
		{"not observable", func(ex *trace.Exchange) { ex.Milestones.Response.Arrived = trace.NotObservable }, nil, ""},
	} {
		ex := asked()
		tc.seen(ex)
		found := New().Trace(&trace.Trace{Outcome: trace.OutcomeAnswered, Upstreams: []trace.Upstream{{Exchange: ex, Attempt: tc.attempt}}})
		if tc.says == "" {
			if len(found) != 0 {
				t.Errorf("%s: %+v", tc.name, found)
			}
			continue
		}
		code := UpstreamTimeout
		if len(ex.Rejected) > 0 {
			code = ResponseRejected
		}
		if len(found) != 1 || found[0].Code != code || !strings.Contains(found[0].Summary, tc.says) {
			t.Errorf("%s: %+v, want %q", tc.name, found, tc.says)
		}
	}
}

// Where CoreDNS does not tell whether an attempt timed out or was refused, packets tell;
// without them, or where some are missing, it is said that it failed, and no more. An
// attempt whose outcome is not known did not fail.
func TestAttemptThatFailedInSomeWay(t *testing.T) {
	at := func(outcome string) *trace.Attempt {
		return &trace.Attempt{Attempt: 1, Address: "10.0.0.1:53", Outcome: outcome}
	}
	missing := asked()
	missing.LostEvents = 3
	for _, tc := range []struct {
		name    string
		attempt *trace.Attempt
		ex      *trace.Exchange
		code    string // none if empty
	}{
		{"failed, without packets", at(trace.OutcomeFailed), nil, UpstreamError},
		{"failed, its packets show silence", at(trace.OutcomeFailed), asked(), UpstreamTimeout},
		{"failed, packets are missing", at(trace.OutcomeFailed), missing, UpstreamError},
		{"unknown, without packets", at(""), nil, ""},
	} {
		found := New().Trace(&trace.Trace{Outcome: trace.OutcomeAnswered, Upstreams: []trace.Upstream{{Exchange: tc.ex, Attempt: tc.attempt}}})
		if tc.code == "" {
			if len(found) != 0 {
				t.Errorf("%s: %+v", tc.name, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Code != tc.code || !strings.Contains(strings.Join(found[0].Evidence, "\n"), "ended as failed") {
			t.Errorf("%s: %+v, want %s", tc.name, found, tc.code)
		}
	}
}

// An upstream that was silent to several attempts is named once, with the packets of each;
// another one is named too.
func TestSilentUpstreamIsNamedOnce(t *testing.T) {
	silent := func(n int, address string, id uint16) trace.Upstream {
		ex := asked()
		ex.ID = id
		return trace.Upstream{Exchange: ex, Attempt: &trace.Attempt{
			Attempt: n, Address: address, Outcome: trace.OutcomeTimeout, Duration: trace.SecondsPtr(2 * time.Second),
		}}
	}
	client := asked()
	client.Outcome, client.Duration, client.RCode = trace.OutcomeAnswered, trace.SecondsPtr(6*time.Second), "SERVFAIL"
	next := silent(3, "10.0.0.3:53", 7)
	next.Upstreams = []trace.Upstream{silent(1, "10.0.0.1:53", 8)}
	found := New().Trace(&trace.Trace{Header: client.Header, Exchange: client, Outcome: client.Outcome, Upstreams: []trace.Upstream{
		silent(1, "10.0.0.1:53", 5), silent(2, "10.0.0.1:53", 6), next,
	}})
	var said []string
	for _, f := range found {
		if f.Code == UpstreamTimeout {
			said = append(said, f.Summary)
		}
	}
	want := []string{
		"The upstream 10.0.0.1:53 did not answer, 3 times, which cost the lookup 6.00 s.",
		"The upstream 10.0.0.3:53 did not answer, which cost the lookup 2.00 s.",
	}
	if !slices.Equal(said, want) {
		t.Fatalf("%q, want %q", said, want)
	}
	for _, id := range []string{"ID 0x0005", "ID 0x0006", "ID 0x0008"} {
		if !strings.Contains(strings.Join(found[0].Evidence, "\n"), id) {
			t.Errorf("without the query with %s: %q", id, found[0].Evidence)
		}
	}
}

// An upstream query whose lookup is not known is nobody's client.
func TestUpstreamQueryWithoutItsLookup(t *testing.T) {
	ex := asked()
	found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, Role: trace.RoleUpstream})
	if len(found) != 1 || found[0].Code != UpstreamTimeout || strings.Contains(found[0].Summary+strings.Join(found[0].Evidence, ""), "the client") {
		t.Errorf("%+v", found)
	}
}

// A connection that its server resets is refused, not unanswered.
func TestRefusedConnection(t *testing.T) {
	ex := asked()
	ex.Protocol, ex.QName = "tcp", ""
	ex.Reset = &trace.Reset{Src: netip.MustParseAddrPort("10.0.0.1:53"), Offset: trace.Seconds(time.Millisecond)}
	found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
	if len(found) != 1 || found[0].Code != DroppedNoSocket || !strings.Contains(found[0].Summary, "refused the client's TCP connection") {
		t.Errorf("%+v", found)
	}
}

// A lookup that is reported again is remembered once, as it is in the end.
func TestReplacedLookupIsRememberedOnce(t *testing.T) {
	d := New()
	ex := asked()
	d.Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
	whole := ex.Clone()
	whole.Outcome, whole.RCode, whole.Duration, whole.Replaces = trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(6*time.Second), true
	d.Trace(&trace.Trace{Header: whole.Header, Exchange: whole, Outcome: whole.Outcome, Replaces: true})
	list := d.memory.of(lookupKey{clientOf(ex), ex.QName})
	if len(list) != 1 || !list[0].answered || len(d.memory.calls[ex.TraceID].lookups) != 1 {
		t.Errorf("remembered: %+v", list)
	}
}

// An attempt that asked over UDP, and again over TCP, took the time of both.
func TestSlowUpstreamCountsEarlierQueries(t *testing.T) {
	answer := func(at, took time.Duration) *trace.Exchange {
		ex := asked()
		ex.Time, ex.Outcome, ex.RCode, ex.Duration = epoch.Add(at), trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(took)
		return ex
	}
	client := answer(0, 700*time.Millisecond)
	tr := &trace.Trace{Header: client.Header, Exchange: client, Outcome: client.Outcome, Upstreams: []trace.Upstream{{
		Earlier: []*trace.Exchange{answer(10*time.Millisecond, 300*time.Millisecond)}, Exchange: answer(320*time.Millisecond, 300*time.Millisecond),
	}}}
	if found := New().Trace(tr); len(found) != 1 || found[0].Code != SlowUpstream || !strings.Contains(found[0].Summary, "took 610 ms of") {
		t.Errorf("%+v", found)
	}
}

// In a chain the upstream that is slow is the one that the others waited for.
func TestSlowUpstreamOfAChain(t *testing.T) {
	answer := func(took time.Duration, address string) *trace.Exchange {
		ex := asked()
		ex.ServerIP, ex.Outcome, ex.RCode, ex.Duration = netip.MustParseAddr(address), trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(took)
		return ex
	}
	for _, tc := range []struct {
		name string
		last trace.Upstream
		want string
	}{
		{"slow", trace.Upstream{Exchange: answer(2*time.Second, "10.0.0.9")}, "The upstream 10.0.0.9:53, or the way to it, took 2.00 s"},
		{"fast", trace.Upstream{Exchange: answer(time.Millisecond, "10.0.0.9")}, "The upstream 10.0.0.8:53, or the way to it, took 2.01 s"},
		{"silent", trace.Upstream{Attempt: &trace.Attempt{
			Attempt: 1, Address: "10.0.0.9:53", Outcome: trace.OutcomeTimeout, Duration: trace.SecondsPtr(2 * time.Second),
		}}, "The upstream 10.0.0.9:53 did not answer"},
	} {
		client := answer(2020*time.Millisecond, "10.0.0.7")
		found := New().Trace(&trace.Trace{Header: client.Header, Exchange: client, Outcome: client.Outcome, Upstreams: []trace.Upstream{
			{Exchange: answer(2010*time.Millisecond, "10.0.0.8"), Upstreams: []trace.Upstream{tc.last}},
		}})
		if len(found) != 1 || !strings.HasPrefix(found[0].Summary, tc.want) {
			t.Errorf("%s: %+v, want %s", tc.name, found, tc.want)
		}
	}
}
