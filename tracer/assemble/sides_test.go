package assemble

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// seenBy is what two nodes see of one lookup: the client's, and the server's,
// whose clock is ahead. The packets take way from one to the other.
func seenBy(name string, port uint16, took, way, ahead time.Duration) (clientSide, serverSide *trace.Exchange) {
	const serverNode = 20
	clientSide = fromClient(name, port, 0, took)
	clientSide.Path, clientSide.Server, clientSide.Node = trace.Path{}, nil, "a"
	clientSide.Milestones = trace.Milestones{
		Query:    trace.Progress{Left: see(clientSide, trace.MessageQuery, trace.DirectionTX, clientNS, 0), Arrived: trace.NotObservable, Read: trace.NotObservable},
		Response: trace.Progress{Left: trace.NotObservable},
	}
	see(clientSide, trace.MessageQuery, trace.DirectionTX, nodeNS, 10*time.Microsecond)
	see(clientSide, trace.MessageResponse, trace.DirectionRX, nodeNS, took-10*time.Microsecond)
	clientSide.Milestones.Response.Arrived = see(clientSide, trace.MessageResponse, trace.DirectionRX, clientNS, took)
	there := took - 20*time.Microsecond - 2*way
	serverSide = fromClient(name, port, 10*time.Microsecond+way+ahead, there)
	serverSide.Path, serverSide.Node = trace.Path{}, "b"
	see(serverSide, trace.MessageQuery, trace.DirectionRX, serverNode, 0)
	serverSide.Milestones = trace.Milestones{
		Query:    trace.Progress{Left: trace.NotObservable, Arrived: see(serverSide, trace.MessageQuery, trace.DirectionRX, serverNS, 10*time.Microsecond)},
		Response: trace.Progress{Arrived: trace.NotObservable, Read: trace.NotObservable},
	}
	serverSide.Milestones.Response.Left = see(serverSide, trace.MessageResponse, trace.DirectionTX, serverNS, there-10*time.Microsecond)
	see(serverSide, trace.MessageResponse, trace.DirectionTX, serverNode, there)
	return clientSide, serverSide
}

// Two nodes and CoreDNS saw one lookup; the clock of the server's node is ahead
// or behind. One trace, in the order in which things happened, and it says by how
// much the clocks differ.
func TestTwoNodes(t *testing.T) {
	const took, way = 5 * time.Millisecond, 300 * time.Microsecond
	for _, ahead := range []time.Duration{0, 20 * time.Millisecond, -3 * time.Second, 200 * time.Microsecond} {
		for order := range 6 {
			clientSide, serverSide := seenBy("a.example.", 1000, took, way, ahead)
			q := record(serverSide, 50*time.Microsecond, 4*time.Millisecond, attempt(1, 100*time.Microsecond, 3*time.Millisecond, trace.OutcomeOK))
			upstreamQuery := toUpstream("a.example.", 2000, 0, 2*time.Millisecond)
			upstreamQuery.Time = q.Time.Add(200 * time.Microsecond)
			records := []trace.Record{clientSide, serverSide, q, upstreamQuery}
			rand.New(rand.NewPCG(uint64(order), 1)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
			traces := assemble(records...)
			if len(traces) != 1 {
				t.Fatalf("ahead %s, order %d: %d traces", ahead, order, len(traces))
			}
			tr := traces[0]
			if tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact || !tr.Time.Equal(clientSide.Time) || tr.Server == nil {
				t.Errorf("ahead %s: %+v", ahead, tr)
			}
			var saw []uint32
			for _, s := range tr.Exchange.Path.All() {
				saw = append(saw, s.NetNS)
			}
			if want := []uint32{clientNS, nodeNS, 20, serverNS, serverNS, 20, nodeNS, clientNS}; !slices.Equal(saw, want) {
				t.Errorf("ahead %s: seen in %v, expected %v", ahead, saw, want)
			}
			if len(tr.Gaps) != 1 || !strings.Contains(tr.Gaps[0], "two nodes saw it") || !strings.Contains(tr.Gaps[0], "(± 305µs)") {
				t.Errorf("ahead %s: gaps %q", ahead, tr.Gaps)
			}
		}
	}
}

// A node writes an exchange again when more of it came, and a shipper may deliver
// either twice, in any order: each side is the fullest that there was, and neither
// takes the place of the other.
func TestTwoNodesWriteAgain(t *testing.T) {
	const took, way = 5 * time.Millisecond, 300 * time.Microsecond
	for order := range uint64(40) {
		clientSide, serverSide := seenBy("a.example.", 1000, took, way, 20*time.Millisecond)
		q := record(serverSide, 50*time.Microsecond, 4*time.Millisecond)
		records := []trace.Record{clientSide, clientSide, serverSide, serverSide, q}
		for _, ex := range []*trace.Exchange{clientSide, serverSide} {
			early := *ex
			early.Path, early.Outcome, early.Duration, early.RCode = trace.Path{}, trace.OutcomeUnanswered, nil, ""
			for _, i := range []int{0, 1} {
				early.Path.Append(ex.Path.At(i))
			}
			early.Milestones.Response = trace.Progress{}
			records = append(records, &early, &early)
		}
		rand.New(rand.NewPCG(order, 1)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		traces := assemble(records...)
		if len(traces) != 1 {
			t.Fatalf("order %d: %d traces", order, len(traces))
		}
		tr := traces[0]
		if tr.Query == nil || tr.Outcome != trace.OutcomeAnswered || tr.Exchange.Path.Len() != 8 || !tr.Time.Equal(clientSide.Time) || tr.ClockOffset == nil {
			t.Errorf("order %d: outcome %s, seen %d times, record %t, gaps %q", order, tr.Outcome, tr.Exchange.Path.Len(), tr.Query != nil, tr.Gaps)
		}
	}
}

func TestOffset(t *testing.T) {
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	for _, tc := range []struct {
		sent, back, in, out time.Duration
		want                string
	}{
		{0, 10 * ms, 2 * ms, 8 * ms, "0s (± 2ms) ahead of"},
		{0, 10 * ms, 52 * ms, 58 * ms, "50ms (± 2ms) ahead of"},
		{0, 10 * ms, -52 * ms, -42 * ms, "52ms (± 0s) behind"},
		{0, 10 * ms, 0, 20 * ms, ""}, // longer there than here: another lookup
		{0, 10 * ms, 6 * time.Second, 6*time.Second + ms, ""},
	} {
		o, ok := between(at(tc.sent), at(tc.back), at(tc.in), at(tc.out))
		if got := o.String(); ok != (tc.want != "") || ok && got != tc.want {
			t.Errorf("%+v: got %q, %t", tc, got, ok)
		}
	}
}

// The server is beyond this node, and its record is on another clock: that is
// said; of a server on this node it is never.
func TestRecordOnAnotherClock(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ahead time.Duration
		local bool
		want  string
	}{
		{"agrees", 0, false, ""},
		{"ahead", 30 * time.Millisecond, false, "ahead of"},
		{"behind", -2 * time.Second, false, "behind"},
		{"one clock", 0, true, ""},
	} {
		clientSide, _ := seenBy("a.example.", 1000, 5*ms, 300*time.Microsecond, 0)
		if tc.local {
			clientSide = fromClient("a.example.", 1000, 0, 5*ms)
		}
		traces := assemble(clientSide, record(clientSide, ms+tc.ahead, 3*ms))
		if len(traces) != 1 || traces[0].Query == nil {
			t.Fatalf("%s: %d traces", tc.name, len(traces))
		}
		said := strings.Join(traces[0].Gaps, "\n")
		if strings.Contains(said, "clock of the server") != (tc.want != "") || !strings.Contains(said, tc.want) {
			t.Errorf("%s: gaps %q", tc.name, traces[0].Gaps)
		}
	}
}

// Somebody translated the client where nobody watched: the record has another
// address, and so another flow.
func TestTranslatedUnseen(t *testing.T) {
	translated := func(ex *trace.Exchange) *trace.Query {
		q := record(ex, ms, 2*ms)
		q.ClientIP, q.ClientPort = upstreamIP, 61000
		q.Flow = flowOf(upstreamIP, 61000, ex.QName)
		q.TraceID = trace.NewTraceID(q.Time, q.Flow)
		return q
	}
	ex := fromClient("a.example.", 1000, 0, 5*ms)
	traces := assemble(ex, translated(ex))
	if len(traces) != 1 || traces[0].Query == nil || !slices.Contains(traces[0].Gaps, matchedClient) {
		t.Fatalf("%d traces, gaps %v", len(traces), traces[0].Gaps)
	}

	// Two records that fit alike: neither is taken.
	again := translated(ex)
	again.Time, again.Flow = again.Time.Add(ms/10), flowOf(upstreamIP, 61001, ex.QName)
	for _, tr := range assemble(ex, translated(ex), again) {
		if tr.Exchange != nil && tr.Query != nil {
			t.Error("joined one of two equals")
		}
	}
	// Another ID, or after the response: not the same.
	for name, change := range map[string]func(*trace.Query){
		"another ID":         func(q *trace.Query) { q.ID++ },
		"after the response": func(q *trace.Query) { q.Time = q.Time.Add(10 * ms) },
		"longer":             func(q *trace.Query) { q.DNS.Duration = trace.SecondsPtr(6 * ms) },
		"another transport":  func(q *trace.Query) { q.Protocol = "tcp" },
	} {
		q := translated(ex)
		change(q)
		if traces := assemble(ex, q); len(traces) != 2 {
			t.Errorf("%s: %d traces", name, len(traces))
		}
	}
}

// A record that comes twice counts once, whatever it is and whenever it comes
// while the lookup is held.
func TestTwice(t *testing.T) {
	clientSide, serverSide := seenBy("a.example.", 1000, 5*ms, 300*time.Microsecond, ms)
	q := record(serverSide, 50*time.Microsecond, 3*ms)
	r := refreshOf(q, time.Second, attempt(1, 0, ms, trace.OutcomeOK))
	records := []trace.Record{clientSide, serverSide, q, r, clientSide.Clone(), serverSide.Clone(), q, r}
	a := New(Config{})
	for _, rec := range records {
		a.Add(rec)
	}
	traces := a.Flush()
	if s := a.Stats(); len(traces) != 2 || s.Duplicates != 4 {
		t.Errorf("%d traces, %+v", len(traces), s)
	}
	for _, tr := range traces {
		for _, gap := range tr.Gaps {
			if strings.Contains(gap, "recorded this query") {
				t.Errorf("a record that came twice is taken for a retransmission: %s", gap)
			}
		}
	}
}

// What two nodes know of one end adds up; of two pods, the one counts that the
// pod's own node named.
func TestSameEnd(t *testing.T) {
	own := &trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Node: "b", Container: "coredns", Process: "coredns", PID: 7}
	for _, tc := range []struct {
		name                string
		better, other, want *trace.Endpoint
	}{
		{"nobody", nil, nil, nil},
		{"one", nil, own, own},
		{"the Service, from afar", own, &trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Workload: "Deployment/coredns", Service: "kube-system/kube-dns"},
			&trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Node: "b", Container: "coredns", Process: "coredns", PID: 7,
				Workload: "Deployment/coredns", Service: "kube-system/kube-dns"}},
		{"another pod, from afar", own, &trace.Endpoint{Pod: "coredns-2", Namespace: "kube-system", Node: "c", Service: "kube-system/kube-dns"},
			&trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Node: "b", Container: "coredns", Process: "coredns", PID: 7, Service: "kube-system/kube-dns"}},
		{"the pod, from afar", &trace.Endpoint{Cgroup: "/x"}, own,
			&trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system", Node: "b", Container: "coredns", Process: "coredns", PID: 7, Cgroup: "/x"}},
	} {
		got := sameEnd(tc.better, tc.other)
		if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
			t.Errorf("%s: got %+v, expected %+v", tc.name, got, tc.want)
		}
	}
}

// Each milestone is where the node that knows it best saw it, and every sighting and
// drop names its node.
func TestMergedMilestones(t *testing.T) {
	const took, way = 5 * time.Millisecond, 300 * time.Microsecond
	client, server := seenBy("a.example.", 1000, took, way, 20*time.Millisecond)
	read := see(server, trace.MessageQuery, trace.DirectionRead, serverNS, 2*ms)
	server.Milestones.Query.Read = read
	client.Drops = []trace.Drop{{Message: trace.MessageQuery, Offset: trace.Seconds(4 * ms)}}
	server.Drops = []trace.Drop{{Message: trace.MessageResponse, Offset: trace.Seconds(ms)}}
	for _, order := range [][]trace.Record{{client, server}, {server, client}} {
		traces := assemble(order...)
		if len(traces) != 1 {
			t.Fatalf("%d traces", len(traces))
		}
		ex := traces[0].Exchange
		m := &ex.Milestones
		for _, tc := range []struct {
			name      string
			at        trace.Milestone
			node      string
			netns     uint32
			direction string
		}{
			{"query left", m.Query.Left, "a", clientNS, trace.DirectionTX},
			{"query arrived", m.Query.Arrived, "b", serverNS, trace.DirectionRX},
			{"query read", m.Query.Read, "b", serverNS, trace.DirectionRead},
			{"response left", m.Response.Left, "b", serverNS, trace.DirectionTX},
			{"response arrived", m.Response.Arrived, "a", clientNS, trace.DirectionRX},
		} {
			if s, ok := ex.Sighting(tc.at); !ok || s.Node != tc.node || s.NetNS != tc.netns || s.Direction != tc.direction {
				t.Errorf("%s: %+v", tc.name, s)
			}
		}
		if m.Response.Read != trace.NotSeen {
			t.Errorf("response read: %d", m.Response.Read)
		}
		for _, s := range ex.Path.All() {
			if s.Node == "" {
				t.Errorf("a sighting of no node: %+v", s)
			}
		}
		if len(ex.Drops) != 2 || ex.Drops[0].Node != "b" || ex.Drops[1].Node != "a" {
			t.Errorf("drops %+v", ex.Drops)
		}
	}
	if client.Path.Len() != 4 || server.Path.Len() != 5 || len(client.Drops) != 1 || client.Drops[0].Node != "" {
		t.Error("what each node saw has changed")
	}
}
