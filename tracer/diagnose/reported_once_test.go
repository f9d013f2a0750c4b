package diagnose

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// attemptAt is an attempt of CoreDNS's at one upstream, with its exchange.
func attemptAt(n int, outcome string, took time.Duration, ex *trace.Exchange) trace.Upstream {
	ex.ServerIP = netip.MustParseAddr("192.0.2.53")
	at := &trace.Attempt{Attempt: n, Address: "192.0.2.53:53", Outcome: outcome, Duration: trace.SecondsPtr(took)}
	return trace.Upstream{Attempt: at, Exchange: ex, Join: trace.JoinExact}
}

// respondedAfter is an exchange with a response.
func respondedAfter(after time.Duration, rcode string) *trace.Exchange {
	ex := asked()
	ex.Outcome, ex.RCode, ex.Duration = trace.OutcomeAnswered, rcode, trace.SecondsPtr(after)
	return ex
}

// What several queries to one upstream show is reported once, by the name that attempts give it,
// also where one of them is of no attempt that is known.
func TestUpstreamToldOnce(t *testing.T) {
	rejected := func() *trace.Exchange {
		ex := asked()
		ex.Rejected = []trace.Rejection{{Why: trace.RejectedID}}
		return ex
	}
	for _, tc := range []struct {
		code   string
		answer func() *trace.Exchange
	}{
		{SlowUpstream, func() *trace.Exchange { return respondedAfter(2*time.Second, "NOERROR") }},
		{ResponseRejected, rejected},
	} {
		stray := attemptAt(2, "", 0, tc.answer())
		stray.Attempt = nil
		client := respondedAfter(2100*time.Millisecond, "NOERROR")
		found := New().Trace(&trace.Trace{Header: client.Header, Exchange: client, Outcome: client.Outcome, Upstreams: []trace.Upstream{
			attemptAt(1, trace.OutcomeOK, 2*time.Second, tc.answer()), stray,
		}})
		if codesOf(found) != tc.code || !strings.Contains(found[0].Summary, "192.0.2.53:53") {
			t.Errorf("%s: %+v", tc.code, found)
		}
	}
}

// In a chain with equal timeouts the first server may give up just as the second answers
// that its own upstream was silent, and then get the same from its cache: only the upstream
// at the end was silent.
func TestSilentBehindEqualTimeouts(t *testing.T) {
	const wait = 2 * time.Second
	record := func(start time.Duration, cache string) *trace.Query {
		q := &trace.Query{Outcome: trace.OutcomeError, Cache: cache, DNS: trace.DNS{QName: "a.example.", QType: "A", RCode: "SERVFAIL", Duration: trace.SecondsPtr(wait)}}
		q.Time = epoch.Add(start)
		return q
	}
	first, second := attemptAt(1, trace.OutcomeTimeout, wait, respondedAfter(wait-time.Millisecond, "SERVFAIL")), attemptAt(2, trace.OutcomeOK, time.Millisecond, respondedAfter(time.Millisecond, "SERVFAIL"))
	end := attemptAt(1, trace.OutcomeTimeout, wait-2*time.Millisecond, asked())
	end.Attempt.Address, end.Exchange.ServerIP = "192.0.2.99:53", netip.MustParseAddr("192.0.2.99")
	end.Exchange.Milestones.Response.Arrived = trace.NotSeen
	first.Query, first.Upstreams = record(0, trace.CacheMiss), []trace.Upstream{end}
	second.Query = record(wait, trace.CacheHit)
	client := respondedAfter(wait+time.Millisecond, "SERVFAIL")
	client.TraceID[0] = 1
	found := New().Trace(&trace.Trace{
		Header: client.Header, Exchange: client, Outcome: client.Outcome, RCode: "SERVFAIL", Query: record(0, trace.CacheMiss), Upstreams: []trace.Upstream{first, second},
	})
	if codesOf(found) != UpstreamTimeout || !strings.Contains(found[0].Summary, "192.0.2.99:53") {
		t.Errorf("%+v", found)
	}
}

// A query that waits behind another of its connection waits for an answer, not for a server
// that is short of CPU.
func TestWaitBehindOthersOfAConnection(t *testing.T) {
	for _, tc := range []struct {
		protocol    string
		outstanding int
		overloaded  bool
	}{{"tcp", 0, true}, {"tcp", 1, false}, {"udp", 1, true}} {
		ex := respondedAfter(400*time.Millisecond, "NOERROR")
		ex.Protocol, ex.Outstanding = tc.protocol, tc.outstanding
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
		ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", 390*time.Millisecond)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: "NOERROR"})
		if got := slices.ContainsFunc(found, func(f trace.Finding) bool { return f.Code == ServerOverloaded }); got != tc.overloaded {
			t.Errorf("%s with %d others: %+v", tc.protocol, tc.outstanding, found)
		}
	}
}

// One that nothing was answered to is not said to meet a server that hangs.
func TestBehindOneWithoutAnAnswer(t *testing.T) {
	for _, tc := range []struct {
		protocol    string
		outstanding int
		want        string
	}{{"tcp", 0, "which never read it"}, {"tcp", 1, "which has not answered 1 query before it"}, {"tcp", 2, "which has not answered 2 queries before it"}, {"udp", 1, "which never read it"}} {
		ex := asked()
		ex.Protocol, ex.Outstanding = tc.protocol, tc.outstanding
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
		ex.Milestones.Query.Read = trace.NotSeen
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if codesOf(found) != NoResponseSeen || !strings.Contains(found[0].Summary, tc.want) {
			t.Errorf("%s with %d others: %+v, want %q", tc.protocol, tc.outstanding, found, tc.want)
		}
	}
}

// A rule that rejects a query sends an error, or a reset, where it drops it.
func TestRejectedByARule(t *testing.T) {
	for _, tc := range []struct {
		change func(ex *trace.Exchange)
		want   string
	}{
		{func(ex *trace.Exchange) {}, "A firewall rule dropped"},
		{func(ex *trace.Exchange) {
			ex.ICMP = &trace.ICMP{Type: 3, Code: 13, From: ex.ServerIP, Message: trace.MessageQuery, NetNS: inodes["server"], Offset: trace.Seconds(900 * time.Microsecond)}
		}, "A firewall rule rejected the client's query"},
		{func(ex *trace.Exchange) {
			ex.ICMP = &trace.ICMP{Type: 3, Code: 13, From: ex.ServerIP, Message: trace.MessageQuery, NetNS: inodes["node"], Offset: trace.Seconds(900 * time.Microsecond)}
		}, "A firewall rule dropped"},
		{func(ex *trace.Exchange) {
			ex.Protocol, ex.QName, ex.QType = "tcp", "", ""
			ex.Reset = &trace.Reset{Src: netip.AddrPortFrom(ex.ServerIP, 53), Offset: trace.Seconds(900 * time.Microsecond)}
		}, "A firewall rule rejected the client's attempt to connect over TCP by a TCP reset"},
		// It waits for the client's link address.
		{func(ex *trace.Exchange) {
			ex.ICMP = &trace.ICMP{Type: 3, Code: 13, From: ex.ServerIP, Message: trace.MessageQuery, NetNS: inodes["server"], Offset: trace.Seconds(1100 * time.Microsecond)}
		}, "A firewall rule rejected the client's query by ICMP (prohibited by a firewall)"},
		// Of several transmissions, the first was reported.
		{func(ex *trace.Exchange) {
			ex.Protocol, ex.QName, ex.QType, ex.Transmissions = "tcp", "", "", 2
			ex.Drops = append(ex.Drops, dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "server", time.Second+3*time.Millisecond))
			ex.Reset = &trace.Reset{Src: netip.AddrPortFrom(ex.ServerIP, 53), Offset: trace.Seconds(900 * time.Microsecond)}
		}, "A firewall rule rejected the client's attempt to connect"},
		// Where it is sent, the process is reported, whatever the rule does.
		{func(ex *trace.Exchange) {
			ex.Path, ex.Drops = trace.Path{}, []trace.Drop{dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "client", 0)}
			ex.Drops[0].IfName, ex.Drops[0].Description = "", "netfilter hook OUTPUT"
		}, "A firewall rule rejected or dropped the client's query in namespace client (hook OUTPUT): sending it failed there (EPERM)."},
		{func(ex *trace.Exchange) {
			ex.Path, ex.Drops = trace.Path{}, []trace.Drop{dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "client", 0)}
			ex.Drops[0].IfName, ex.Drops[0].Description = "", "netfilter hook OUTPUT"
			ex.ICMP = &trace.ICMP{Type: 3, Code: 3, From: ex.ClientIP, Message: trace.MessageQuery, NetNS: inodes["client"], IfName: "lo", Offset: trace.Seconds(9 * time.Millisecond)}
		}, "A firewall rule rejected the client's query by ICMP (port unreachable) in namespace client (hook OUTPUT)."},
		// Over IPv6, the device tells.
		{func(ex *trace.Exchange) {
			ex.ClientIP, ex.ServerIP = netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::1")
			ex.Path, ex.Drops = trace.Path{}, []trace.Drop{dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "client", 0)}
			ex.Drops[0].IfName, ex.Drops[0].Description = "lo", "netfilter hook OUTPUT"
		}, "A firewall rule rejected the client's query in namespace client (hook OUTPUT): sending it failed there (EPERM)."},
		{func(ex *trace.Exchange) {
			ex.Protocol, ex.QName, ex.QType = "tcp", "", ""
			ex.Drops[0].IfName, ex.Drops[0].Description = "", "netfilter hook OUTPUT"
		}, "A firewall rule dropped the client's attempt to connect"},
	} {
		ex := asked()
		ex.Outcome = trace.OutcomeDropped
		ex.Drops = []trace.Drop{dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "server", time.Millisecond)}
		tc.change(ex)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if codesOf(found) != DroppedByNetfilter || !strings.HasPrefix(found[0].Summary, tc.want) {
			t.Errorf("%+v, want %q", found, tc.want)
		}
	}
}

// A client that resets its connection before a response gave up; one whose server, or
// firewall, resets it did not.
func TestClientResetItsConnection(t *testing.T) {
	for _, tc := range []struct {
		by, code string
	}{{"10.0.0.2:40000", ClientGaveUp}, {"10.0.0.1:53", NoResponseSeen}} {
		ex := asked()
		ex.Protocol, ex.Reset = "tcp", &trace.Reset{Src: netip.MustParseAddrPort(tc.by), Offset: trace.Seconds(50 * time.Millisecond)}
		ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", time.Millisecond)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome})
		if codesOf(found) != tc.code {
			t.Errorf("reset by %s: %+v, want %s", tc.by, found, tc.code)
		}
	}
}

// A server that answers long after anybody watched for its response, as when it had to wait
// for a connection, has lost no response.
func TestAnsweredUnwatched(t *testing.T) {
	for _, tc := range []struct {
		took time.Duration
		want string
	}{
		{4 * time.Second, ResponseLost},
		{30 * time.Second, NoResponseSeen},
	} {
		ex := asked()
		ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", time.Millisecond)
		q := &trace.Query{Outcome: trace.OutcomeError, DNS: trace.DNS{RCode: "SERVFAIL", Duration: trace.SecondsPtr(tc.took)}}
		q.Time = epoch.Add(time.Millisecond)
		found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Query: q, Outcome: ex.Outcome})
		if codesOf(found) != tc.want {
			t.Errorf("answered after %s: %+v, want %s", tc.took, found, tc.want)
		}
	}
}

// A response over TCP that is dropped each time that it is sent, until its client has gone: the
// drops are the cause.
func TestResponseDroppedUntilTheClientHasGone(t *testing.T) {
	drop := func(at time.Duration, namespace, where, reason string) trace.Drop {
		return trace.Drop{Message: trace.MessageResponse, NetNS: inodes[namespace], NetNSName: namespace, Where: where, Reason: reason, Offset: trace.Seconds(at)}
	}
	ex := asked()
	ex.Protocol, ex.RCode, ex.Outcome = "tcp", "NOERROR", trace.OutcomeDropped
	ex.Drops = []trace.Drop{
		drop(time.Millisecond, "node", "nft_do_chain", "NETFILTER_DROP"), drop(200*time.Millisecond, "node", "nft_do_chain", "NETFILTER_DROP"),
		drop(5*time.Second, "client", "tcp_v4_rcv", "NO_SOCKET"),
	}
	found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: ex.RCode})
	if got, want := codesOf(found), DroppedByNetfilter+" "+ClientGaveUp; got != want && got != ClientGaveUp+" "+DroppedByNetfilter {
		t.Errorf("%s: %+v, want %s", got, found, want)
	}
}

// A packet, or a fragment of it, that is doubled on its way tells of no loss, nor of a client
// that asks again.
func TestDoubledOnItsWay(t *testing.T) {
	query := respondedAfter(2*time.Millisecond, "NOERROR")
	query.Transmissions = 2
	see(query, trace.MessageQuery, trace.DirectionTX, "client", 50*time.Microsecond)
	fragment := respondedAfter(time.Millisecond, "NOERROR")
	fragment.Fragments = &trace.Fragments{Message: trace.MessageResponse, Seen: 4, Complete: true}
	fragment.Drops = []trace.Drop{dropAt(trace.MessageResponse, "DUP_FRAG", "ip_defrag", "client", time.Millisecond)}
	for _, ex := range []*trace.Exchange{query, fragment} {
		if found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: "NOERROR"}); len(found) != 0 {
			t.Errorf("%+v", found)
		}
	}
}
