package assemble

import (
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// onNode makes an exchange one that a node saw.
func onNode(node string) func(*trace.Exchange) {
	return func(ex *trace.Exchange) {
		path := ex.Path.Clone()
		ex.Node, ex.Path = node, trace.Path{}
		for _, s := range path.All() {
			s.Node = node
			ex.Path.Append(s)
		}
	}
}

func unseenAtServer(m trace.Milestone) func(*trace.Exchange) {
	return func(ex *trace.Exchange) { ex.Milestones.Query.Arrived = m }
}

// It is said that a query did not reach its server, as that has no record of it, only
// of a server that is known to record such queries, on this node, and has had the time.
func TestNotRecorded(t *testing.T) {
	lost := func(changes ...func(*trace.Exchange)) *trace.Exchange {
		ex := exchange("lost.example.", clientNS, nodeNS, clientIP, serverIP, 2000, sec, 0)
		return with(ex, append([]func(*trace.Exchange){unseenAtServer(trace.NotSeen)}, changes...)...)
	}
	for _, tc := range []struct {
		name string
		ex   *trace.Exchange
		node string // of the server's record
		zone string
		want bool
	}{
		{"lost", lost(), "", ".", true},
		{"reading is not observable, arrival is", lost(func(ex *trace.Exchange) { ex.Milestones.Query.Read = trace.NotObservable }), "", ".", true},
		{"in a zone that it records", lost(), "", "example.", true},
		{"in another zone", lost(), "", "cluster.local.", false},
		{"in a zone whose name ends alike", lost(), "", "ample.", false},
		{"the zone is not known", lost(), "", "", false},
		{"arrival is not observable", lost(unseenAtServer(trace.NotObservable)), "", ".", false},
		{"it arrived", fromClient("lost.example.", 2000, sec, 0), "", ".", false},
		{"it was read", lost(func(ex *trace.Exchange) {
			ex.Milestones.Query.Read = see(ex, trace.MessageQuery, trace.DirectionRead, serverNS, ms)
		}), "", ".", false},
		{"answered", fromClient("lost.example.", 2000, sec, ms), "", ".", false},
		{"packets were lost by the tracer", lost(func(ex *trace.Exchange) { ex.LostEvents = 1 }), "", ".", false},
		{"a connection", lost(synOnly), "", ".", false},
		{"to another server", exchange("lost.example.", clientNS, nodeNS, clientIP, upstreamIP, 2000, sec, 0), "", ".", false},
		{"the server is on another node", lost(onNode("a")), "b", ".", false},
		{"the server is on this node", lost(onNode("a")), "a", ".", true},
		{"dropped", lost(func(ex *trace.Exchange) { ex.Drops = []trace.Drop{{Message: trace.MessageQuery}} }), "", ".", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			known := with(fromClient("known.example.", 1000, 0, ms), onNode(tc.node))
			q := record(known, 10*time.Microsecond, ms/2)
			q.Zone = tc.zone
			for _, tr := range live(3*sec, known, q, tc.ex.Clone()) {
				if got := slices.Contains(tr.Gaps, trace.GapNotRecorded); got != (tc.want && tr.Exchange.ClientPort == 2000) {
					t.Errorf("%s: gaps %v", tr.QName, tr.Gaps)
				}
			}
		})
	}
}

// What a server sent and nobody can be given is no client's lookup; what another process
// in its namespace sent is.
func TestRole(t *testing.T) {
	for _, tc := range []struct {
		name string
		ex   *trace.Exchange
		want string
	}{
		{"the server's process", toUpstream("b.example.", 2000, sec, ms), trace.RoleUpstream},
		{"it is silent", toUpstream("b.example.", 2000, sec, 0), trace.RoleUpstream},
		{"another process", with(toUpstream("b.example.", 2000, sec, ms), func(ex *trace.Exchange) { ex.Client.PID = 5 }), ""},
		{"process unknown, the server's address", with(toUpstream("b.example.", 2000, sec, ms), func(ex *trace.Exchange) { ex.Client = nil }), trace.RoleUpstream},
		{"process unknown, another address", with(exchange("b.example.", serverNS, nodeNS, clientIP, upstreamIP, 2000, sec, ms), func(ex *trace.Exchange) { ex.Client = nil }), ""},
		{"a client", fromClient("b.example.", 2000, sec, ms), ""},
		{"the same namespace on another node", with(toUpstream("b.example.", 2000, sec, ms), onNode("b")), ""},
	} {
		traces := live(3*sec, append(miss("a.example.", 1000, 0), tc.ex)...)
		if got := traces[len(traces)-1]; len(traces) != 2 || got.Exchange.ClientPort != 2000 || got.Role != tc.want {
			t.Errorf("%s: %s", tc.name, outlines(traces))
		}
	}
}

// Two nodes give their namespaces and processes the same numbers.
func TestPlacesAreOfANode(t *testing.T) {
	const us = time.Microsecond
	var records []trace.Record
	for i, node := range []string{"a", "b"} {
		ex := with(fromClient("a.example.", uint16(1000+i), time.Duration(i)*20*us, 2*ms), onNode(node))
		records = append(records, ex, record(ex, 20*us, 1900*us, attempt(1, 100*us, 1500*us, trace.OutcomeOK)),
			with(toUpstream("a.example.", uint16(2000+i), 300*us-time.Duration(i)*50*us, ms), onNode(node)))
	}
	everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
		if got, want := outlines(traces), "1000 recorded [1: 2000 exact]\n1001 recorded [1: 2001 exact]"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}
