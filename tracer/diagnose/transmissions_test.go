package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// again is a query that was sent at 0 and once more at 1 s, which reached its server and
// was answered. What became of the first one is lost's to tell.
func again(lost func(*trace.Exchange)) *trace.Exchange {
	const ms = time.Millisecond
	ex := asked()
	lost(ex)
	see(ex, trace.MessageQuery, trace.DirectionTX, "client", 1000*ms)
	ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", 1001*ms)
	ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, "server", 1002*ms)
	ex.Milestones.Response.Left = see(ex, trace.MessageResponse, trace.DirectionTX, "server", 1003*ms)
	ex.Milestones.Response.Arrived = see(ex, trace.MessageResponse, trace.DirectionRX, "client", 1004*ms)
	took := trace.Seconds(1004 * ms)
	ex.Outcome, ex.RCode, ex.Duration, ex.Transmissions = trace.OutcomeAnswered, "NOERROR", &took, 2
	return ex
}

func dropAt(message, reason, where, namespace string, at time.Duration) trace.Drop {
	return trace.Drop{Message: message, Reason: reason, Where: where, NetNS: inodes[namespace], NetNSName: namespace, IfName: "eth0", Offset: trace.Seconds(at)}
}

// A transmission that was lost is named by what lost it, where that was seen.
func TestLostTransmission(t *testing.T) {
	const ms = time.Millisecond
	atNode := func(ex *trace.Exchange) { see(ex, trace.MessageQuery, trace.DirectionRX, "node", ms) }
	atServer := func(ex *trace.Exchange) {
		atNode(ex)
		see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", 2*ms)
	}
	answer := func(ex *trace.Exchange, at time.Duration) {
		atServer(ex)
		see(ex, trace.MessageResponse, trace.DirectionTX, "server", at)
	}
	for _, tc := range []struct {
		name   string
		lost   func(*trace.Exchange)
		want   string // the codes
		says   string
		silent string
	}{
		{"nothing listened", func(ex *trace.Exchange) {
			atNode(ex)
			ex.Drops = []trace.Drop{dropAt(trace.MessageQuery, "NO_SOCKET", "udp_unicast_rcv_skb", "server", 2*ms)}
		}, DroppedNoSocket, "Nothing listened for the client's first query: it was refused in namespace server", "no query was lost"},
		{"a rule dropped it", func(ex *trace.Exchange) {
			atNode(ex)
			ex.Drops = []trace.Drop{dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "node", 2*ms)}
		}, DroppedByNetfilter, "dropped the client's first query in namespace node", "no query was lost"},
		{"a rule dropped its response", func(ex *trace.Exchange) {
			answer(ex, 3*ms)
			ex.Drops = []trace.Drop{dropAt(trace.MessageResponse, "NETFILTER_DROP", "nft_do_chain", "node", 4*ms)}
		}, DroppedByNetfilter, "dropped the response to the client's first query in namespace node", "no query was lost"},
		{"its endpoint is gone, as was found after another answered", func(ex *trace.Exchange) {
			atNode(ex)
			ex.NAT = &trace.NAT{ServerIP: netip.MustParseAddr("10.0.0.9"), Source: trace.NATConntrack}
			d := dropAt(trace.MessageQuery, "NEIGH_FAILED", "neigh_invalidate", "node", 3050*ms)
			d.Held, d.Dst = trace.Seconds(3049*ms), netip.MustParseAddrPort("10.0.0.77:53")
			ex.Drops = []trace.Drop{d}
		}, StaleEndpoint, "The Service sent the client's first query to 10.0.0.77:53, which did not answer ARP", "10.0.0.9"},
		{"a copy that was dropped is not why", func(ex *trace.Exchange) {
			atServer(ex)
			ex.Drops = []trace.Drop{dropAt(trace.MessageQuery, "OTHERHOST", "ip_rcv_core", "node", ms)}
		}, Retransmission, "", "no query was lost"},
		{"it never arrived", atNode, QueryNeverArrived, "The client's first query did not reach the server; the query was last seen at device eth0 in namespace node", "no query was lost"},
		{"the server was silent", atServer, Retransmission, "which had not answered when the client asked again after 1.00 s", "no query was lost"},
		{"its response never arrived", func(ex *trace.Exchange) { answer(ex, 3*ms) }, ResponseLost, "response to the client's first query did not reach the client", "no query was lost"},
		{"its response was on its way when the client asked again, and the next found a closed socket", func(ex *trace.Exchange) {
			answer(ex, 999*ms)
			see(ex, trace.MessageResponse, trace.DirectionRX, "client", 1001*ms)
			see(ex, trace.MessageResponse, trace.DirectionTX, "server", 1999*ms)
			ex.Drops = []trace.Drop{dropAt(trace.MessageResponse, "NO_SOCKET", "udp_unicast_rcv_skb", "client", 2000*ms), dropAt(trace.MessageResponse, "NO_SOCKET", "udp_unicast_rcv_skb", "client", 2001*ms)}
		}, Retransmission, "The client asked again after", ""},
		{"its response was not translated back", func(ex *trace.Exchange) {
			answer(ex, 3*ms)
			port := uint16(53)
			ex.NAT = &trace.NAT{ServerIP: netip.MustParseAddr("10.0.0.9"), ServerPort: &port, Source: trace.NATConntrack}
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedAddress, Src: netip.MustParseAddrPort("10.0.0.9:53"), RCode: "NOERROR", Size: 60, Offset: trace.Seconds(4 * ms)}}
			ex.Drops = []trace.Drop{dropAt(trace.MessageResponse, "NO_SOCKET", "udp_unicast_rcv_skb", "client", 4*ms)}
		}, UnexpectedSource, "The translation of 10.0.0.1:53 was not undone", "no query was lost"},
		{"its response had another ID", func(ex *trace.Exchange) {
			answer(ex, 3*ms)
			ex.Rejected = []trace.Rejection{{Why: trace.RejectedID, Src: netip.MustParseAddrPort("10.0.0.1:53"), Size: 60, Offset: trace.Seconds(4 * ms)}}
		}, ResponseRejected, "wrong DNS ID", "no query was lost"},
		{"an ICMP error refused it", func(ex *trace.Exchange) {
			atNode(ex)
			ex.ICMP = &trace.ICMP{Type: 3, Code: 3, From: netip.MustParseAddr("10.0.0.1"), Message: trace.MessageQuery, Offset: trace.Seconds(2 * ms)}
		}, DroppedNoSocket, "the port of the client's first query is closed", "no query was lost"},
		{"the tracer lost packets", func(ex *trace.Exchange) { atNode(ex); ex.LostEvents = 3 }, Retransmission, "", "no query was lost"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := again(tc.lost)
			found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: ex.RCode, QName: ex.QName, QType: "A"})
			if got := codesOf(found); got != tc.want {
				t.Fatalf("%s, want %s: %+v", got, tc.want, found)
			}
			all := found[0].Summary + "\n" + strings.Join(found[0].Evidence, "\n")
			if !strings.Contains(found[0].Summary, tc.says) || tc.silent != "" && strings.Contains(all, tc.silent) {
				t.Errorf("%s\nwant %q, and not %q", all, tc.says, tc.silent)
			}
			if len(found[0].Summary) > 2*77 {
				t.Errorf("%d characters: %s", len(found[0].Summary), found[0].Summary)
			}
		})
	}
}

func codesOf(found []trace.Finding) string {
	var codes []string
	for _, f := range found {
		codes = append(codes, f.Code)
	}
	return strings.Join(codes, " ")
}

// Drops of one transmission after the other are all said, in their order; those of one
// kind at one place once.
func TestDropsOneAfterTheOther(t *testing.T) {
	const ms = time.Millisecond
	rule := func(at time.Duration) trace.Drop {
		return dropAt(trace.MessageQuery, "NETFILTER_DROP", "nft_do_chain", "node", at)
	}
	full := func(at time.Duration) trace.Drop {
		return dropAt(trace.MessageQuery, "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", "server", at)
	}
	for name, tc := range map[string]struct {
		drops    []trace.Drop
		answered bool
		want     []string // how the summaries begin
	}{
		"two kinds":                    {[]trace.Drop{rule(2 * ms), full(1002 * ms)}, false, []string{"A firewall rule dropped the client's first query", "There was no room for the client's second query"}},
		"the other way round":          {[]trace.Drop{full(2 * ms), rule(1002 * ms)}, false, []string{"There was no room for the client's first query", "A firewall rule dropped the client's second query"}},
		"one kind":                     {[]trace.Drop{rule(2 * ms), rule(1002 * ms)}, false, []string{"A firewall rule dropped the client's query"}},
		"two kinds, then answered":     {[]trace.Drop{rule(2 * ms), full(1002 * ms)}, true, []string{"A firewall rule dropped the client's first query", "There was no room for the client's second query"}},
		"one of two, then answered":    {[]trace.Drop{rule(1002 * ms)}, true, []string{"A firewall rule dropped the client's second query"}},
		"after the answer is too late": {[]trace.Drop{rule(2005 * ms)}, true, nil},
	} {
		ex := asked()
		ex.Drops, ex.Transmissions, ex.Outcome = tc.drops, 2, trace.OutcomeDropped
		see(ex, trace.MessageQuery, trace.DirectionTX, "client", 1000*ms)
		if tc.answered {
			see(ex, trace.MessageQuery, trace.DirectionTX, "client", 2000*ms)
			ex.Milestones.Response.Arrived = see(ex, trace.MessageResponse, trace.DirectionRX, "client", 2004*ms)
			took := trace.Seconds(2004 * ms)
			ex.Outcome, ex.RCode, ex.Duration, ex.Transmissions = trace.OutcomeAnswered, "NOERROR", &took, 3
		}
		var got []string
		for _, f := range New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: ex.RCode, QName: ex.QName, QType: "A"}) {
			if f.Code != Retransmission {
				got = append(got, f.Summary)
			}
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], tc.want[i]) {
				t.Errorf("%s: %q, want %q", name, got[i], tc.want[i])
			}
		}
	}
}

// Over TCP a kernel soon sends again what is not acknowledged: where it had arrived nobody
// asked again, and where it had not it was lost.
func TestSegmentSentAgain(t *testing.T) {
	for _, tc := range []struct {
		protocol string
		arrived  bool
		want     string
	}{{"tcp", true, ""}, {"udp", true, Retransmission}, {"tcp", false, QueryNeverArrived}} {
		ex := again(func(ex *trace.Exchange) {
			if tc.arrived {
				see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
			}
		})
		ex.Protocol = tc.protocol
		if found := New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex, Outcome: ex.Outcome, RCode: "NOERROR"}); codesOf(found) != tc.want {
			t.Errorf("%s, arrived %t: %+v, want %q", tc.protocol, tc.arrived, found, tc.want)
		}
	}
}
