package assemble

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

const (
	clientNS, nodeNS, serverNS, cacheNS = 1, 2, 3, 4
	serverPID                           = 77
)

var (
	epoch      = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	clientIP   = netip.MustParseAddr("10.244.0.4")
	serverIP   = netip.MustParseAddr("10.244.0.2")
	upstreamIP = netip.MustParseAddr("192.168.49.1")
)

func flowOf(addr netip.Addr, port uint16, name string) trace.Flow {
	return trace.NewFlow(trace.TransportUDP, netip.AddrPortFrom(addr, port), 1, 1, 1, []byte(name))
}

// exchange makes an exchange from one namespace to another that begins at start
// and, if took is not 0, is answered after it.
func exchange(name string, from, to uint32, src, dst netip.Addr, port uint16, start, took time.Duration) *trace.Exchange {
	ex := &trace.Exchange{ServerIP: dst, ServerPort: 53, Outcome: trace.OutcomeUnanswered, Transmissions: 1}
	ex.V, ex.Record, ex.Time = trace.Version, trace.KindExchange, epoch.Add(start)
	ex.Flow = flowOf(src, port, name)
	ex.TraceID = trace.NewTraceID(ex.Time, ex.Flow)
	ex.QName, ex.QType, ex.QClass, ex.Protocol = name, "A", "IN", "udp"
	ex.ClientIP, ex.ClientPort = src, port
	ex.ID = port
	query := &ex.Milestones.Query
	query.Left = see(ex, trace.MessageQuery, trace.DirectionTX, from, 0)
	query.Arrived = see(ex, trace.MessageQuery, trace.DirectionRX, to, 10*time.Microsecond)
	if took != 0 {
		answer(ex, took)
	}
	if from == serverNS {
		ex.Client = &trace.Endpoint{Process: "coredns", PID: serverPID}
	}
	if to == serverNS {
		ex.Server = &trace.Endpoint{Process: "coredns", PID: serverPID}
	}
	return ex
}

// see adds a sighting.
func see(ex *trace.Exchange, message, direction string, netns uint32, at time.Duration) trace.Milestone {
	ex.Path.Append(trace.Sighting{Message: message, Direction: direction, Device: trace.Device{NetNS: netns}, Offset: trace.Seconds(at)})
	return trace.MilestoneAt(ex.Path.Len() - 1)
}

// answer adds the response of an exchange that was seen from client to server.
func answer(ex *trace.Exchange, took time.Duration) {
	client, _ := ex.ClientPlace()
	server, _ := ex.ServerPlace()
	ex.Outcome, ex.RCode, ex.Duration = trace.OutcomeAnswered, "NOERROR", trace.SecondsPtr(took)
	response := &ex.Milestones.Response
	response.Left = see(ex, trace.MessageResponse, trace.DirectionTX, server.NetNS, took-10*time.Microsecond)
	response.Arrived = see(ex, trace.MessageResponse, trace.DirectionRX, client.NetNS, took)
}

func fromClient(name string, port uint16, start, took time.Duration) *trace.Exchange {
	return exchange(name, clientNS, serverNS, clientIP, serverIP, port, start, took)
}

func toUpstream(name string, port uint16, start, took time.Duration) *trace.Exchange {
	return exchange(name, serverNS, nodeNS, serverIP, upstreamIP, port, start, took)
}

// record makes the server's record of a client's exchange.
func record(ex *trace.Exchange, after, took time.Duration, attempts ...trace.Attempt) *trace.Query {
	q := &trace.Query{Outcome: trace.OutcomeAnswered, Cache: trace.CacheMiss, Zone: ".", Upstreams: attempts}
	q.V, q.Record, q.Time, q.Flow = trace.Version, trace.KindQuery, ex.Time.Add(after), ex.Flow
	q.TraceID = trace.NewTraceID(q.Time, q.Flow)
	q.DNS = ex.DNS
	q.DNS.Duration = trace.SecondsPtr(took)
	return q
}

func attempt(n int, start, took time.Duration, outcome string) trace.Attempt {
	return trace.Attempt{Attempt: n, Address: "192.168.49.1:53", Start: trace.Seconds(start), Duration: trace.SecondsPtr(took), Outcome: outcome, Plugin: "forward"}
}

func assemble(records ...trace.Record) []*trace.Trace {
	a := New(Config{})
	for _, r := range records {
		a.Add(r)
	}
	return a.Flush()
}

// lookup makes the three records of a healthy miss.
func miss(name string, port uint16, start time.Duration) []trace.Record {
	ex := fromClient(name, port, start, 2*time.Millisecond)
	q := record(ex, 20*time.Microsecond, 1900*time.Microsecond, attempt(1, 100*time.Microsecond, 1500*time.Microsecond, trace.OutcomeOK))
	return []trace.Record{toUpstream(name, port+1, start+200*time.Microsecond, time.Millisecond), q, ex}
}

func TestMissIsOneTrace(t *testing.T) {
	traces := assemble(miss("a.example.", 1000, 0)...)
	if len(traces) != 1 {
		t.Fatalf("%d traces", len(traces))
	}
	tr := traces[0]
	if tr.Exchange == nil || tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact || len(tr.Gaps) != 0 {
		t.Errorf("%+v", tr)
	}
}

// Whatever the order in which records come, the traces are the same.
func TestOrderDoesNotMatter(t *testing.T) {
	var records []trace.Record
	for i := range 40 {
		records = append(records, miss(fmt.Sprintf("n%d.example.", i%20), uint16(1000+2*i), time.Duration(i)*5*time.Millisecond)...)
	}
	var first string
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		var lines []string
		for _, tr := range assemble(records...) {
			lines = append(lines, string(tr.AppendJSON(nil)))
		}
		slices.Sort(lines)
		switch got := strings.Join(lines, "\n"); {
		case first == "":
			if first = got; len(lines) != 40 || strings.Count(got, `"join":"exact"`) != 40 {
				t.Fatalf("%d traces, %d joined", len(lines), strings.Count(got, `"join":"exact"`))
			}
		case got != first:
			t.Fatal("another order gives other traces")
		}
	}
}

// Two clients ask one name at once: which upstream exchange is whose is inferred from
// the order, and said to be.
func TestEqualsAreInOrder(t *testing.T) {
	traces := assemble(append(miss("same.example.", 1000, 0), miss("same.example.", 2000, 50*time.Microsecond)...)...)
	if len(traces) != 2 {
		t.Fatalf("%d traces", len(traces))
	}
	for _, tr := range traces {
		u := tr.Upstreams[0]
		if u.Join != trace.JoinInferred || u.Exchange == nil || u.Exchange.ClientPort != tr.Exchange.ClientPort+1 {
			t.Errorf("%d: %+v", tr.Exchange.ClientPort, u)
		}
		if len(tr.Gaps) != 1 || !strings.Contains(tr.Gaps[0], "is inferred from the order") {
			t.Errorf("gaps %v", tr.Gaps)
		}
	}
}

// The same, but CoreDNS stamps what it sends: TRACEPARENT tells them apart.
func TestStampTellsEqualsApart(t *testing.T) {
	records := append(miss("same.example.", 1000, 0), miss("same.example.", 2000, 50*time.Microsecond)...)
	for i := 0; i < len(records); i += 3 {
		q := records[i+1].(*trace.Query)
		q.Stamped = true
		records[i].(*trace.Exchange).Traceparent = trace.Traceparent{TraceID: q.TraceID}.String()
	}
	traces := assemble(records...)
	if len(traces) != 2 {
		t.Fatalf("%d traces", len(traces))
	}
	for _, tr := range traces {
		u := tr.Upstreams[0]
		if u.Join != trace.JoinExact || u.Exchange.Traceparent[3:35] != tr.TraceID.String() {
			t.Errorf("join %s; gaps %v", u.Join, tr.Gaps)
		}
	}
}

func TestFailover(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 2100*time.Millisecond)
	second := attempt(2, 2*time.Second+200*time.Microsecond, time.Millisecond, trace.OutcomeOK)
	second.Address = "192.168.49.2:53"
	q := record(ex, 20*time.Microsecond, 2090*time.Millisecond, attempt(1, 100*time.Microsecond, 2*time.Second, trace.OutcomeTimeout), second)
	answered := exchange("a.example.", serverNS, nodeNS, serverIP, netip.MustParseAddr("192.168.49.2"), 3000, 2*time.Second+300*time.Microsecond, 500*time.Microsecond)
	// The silent one is reported last, after its timeout.
	traces := assemble(answered, q, ex, toUpstream("a.example.", 2000, 200*time.Microsecond, 0))
	if len(traces) != 1 || len(traces[0].Upstreams) != 2 {
		t.Fatalf("%d traces", len(traces))
	}
	for i, u := range traces[0].Upstreams {
		if u.Join != trace.JoinExact || u.Exchange == nil {
			t.Errorf("attempt %d: join %s; gaps %v", i+1, u.Join, traces[0].Gaps)
		}
	}
}

// The server keeps no records: the upstream query is inferred, and only if it is the
// server's own.
func TestInferredWithoutRecords(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 2*time.Millisecond)
	upstreamQuery := toUpstream("a.example.", 2000, 200*time.Microsecond, time.Millisecond)
	traces := assemble(upstreamQuery, ex)
	if len(traces) != 1 || len(traces[0].Upstreams) != 1 || traces[0].Upstreams[0].Join != trace.JoinInferred {
		t.Fatalf("%d traces: %+v", len(traces), traces[0])
	}
	for name, change := range map[string]func(*trace.Exchange){
		"another process":  func(e *trace.Exchange) { e.Client = &trace.Endpoint{Process: "curl", PID: 5} },
		"before the query": func(e *trace.Exchange) { e.Time = epoch.Add(-time.Millisecond) },
		"after the answer": func(e *trace.Exchange) { e.Time = epoch.Add(3 * time.Millisecond) },
		"another place": func(e *trace.Exchange) {
			*e = *exchange("a.example.", 9, nodeNS, serverIP, upstreamIP, 2000, 200*time.Microsecond, time.Millisecond)
		},
	} {
		ex, upstreamQuery := fromClient("a.example.", 1000, 0, 2*time.Millisecond), toUpstream("a.example.", 2000, 200*time.Microsecond, time.Millisecond)
		change(upstreamQuery)
		if traces := assemble(upstreamQuery, ex); len(traces) != 2 {
			t.Errorf("%s: %d traces", name, len(traces))
		}
	}
}

// Node-local cache, cluster DNS, upstream: one tree.
func TestChain(t *testing.T) {
	cache := netip.MustParseAddr("169.254.20.10")
	outer := exchange("a.example.", clientNS, cacheNS, clientIP, cache, 1000, 0, 5*time.Millisecond)
	hop := trace.Attempt{Attempt: 1, Address: "10.244.0.2:53", Start: trace.Seconds(100 * time.Microsecond), Duration: trace.SecondsPtr(4 * time.Millisecond), Outcome: trace.OutcomeOK}
	outerRecord := record(outer, 20*time.Microsecond, 4900*time.Microsecond, hop)
	inner := exchange("a.example.", cacheNS, serverNS, cache, serverIP, 2000, 300*time.Microsecond, 3*time.Millisecond)
	innerRecord := record(inner, 20*time.Microsecond, 2900*time.Microsecond, attempt(1, 100*time.Microsecond, 2*time.Millisecond, trace.OutcomeOK))
	upstreamQuery := toUpstream("a.example.", 3000, 600*time.Microsecond, time.Millisecond)
	traces := assemble(upstreamQuery, innerRecord, inner, outerRecord, outer)
	if len(traces) != 1 {
		t.Fatalf("%d traces", len(traces))
	}
	u := traces[0].Upstreams
	if len(u) != 1 || u[0].Join != trace.JoinExact || u[0].Query == nil || len(u[0].Upstreams) != 1 || u[0].Upstreams[0].Exchange.Flow != upstreamQuery.Flow {
		t.Errorf("%+v", u)
	}
}

func TestRecordAlone(t *testing.T) {
	q := record(fromClient("a.example.", 1000, 0, 0), 0, time.Millisecond, attempt(1, 0, 500*time.Microsecond, trace.OutcomeOK))
	traces := assemble(q)
	if len(traces) != 1 || traces[0].Exchange != nil || traces[0].Query != q || len(traces[0].Upstreams) != 1 || traces[0].Upstreams[0].Join != trace.JoinNone {
		t.Fatalf("%+v", traces)
	}
	if traces[0].TraceID != q.TraceID || len(traces[0].Gaps) != 2 {
		t.Errorf("trace id %s, gaps %v", traces[0].TraceID, traces[0].Gaps)
	}
}

// The same port, ID and question again a minute later is another lookup.
func TestFlowUsedAgain(t *testing.T) {
	early, late := fromClient("a.example.", 1000, 0, time.Millisecond), fromClient("a.example.", 1000, time.Minute, time.Millisecond)
	qe, ql := record(early, 10*time.Microsecond, 900*time.Microsecond), record(late, 10*time.Microsecond, 900*time.Microsecond)
	for _, order := range [][]trace.Record{{early, late, ql, qe}, {qe, ql, late, early}} {
		traces := assemble(order...)
		if len(traces) != 2 {
			t.Fatalf("%d traces", len(traces))
		}
		for _, tr := range traces {
			if tr.Query == nil || tr.Exchange == nil || tr.Query.Time.Sub(tr.Exchange.Time) != 10*time.Microsecond {
				t.Errorf("joined across a minute: %+v", tr)
			}
		}
	}
}

// A lookup without a record is said to have missed its server only if it was not
// seen there: a server may sample, or record some zones only.
func TestMissedServer(t *testing.T) {
	known := fromClient("known.example.", 1000, 0, time.Millisecond)
	lost := exchange("lost.example.", clientNS, nodeNS, clientIP, serverIP, 2000, time.Second, 0)
	lost.Milestones.Query.Arrived = trace.NotSeen
	silent := fromClient("silent.example.", 3000, time.Second, 0)
	sampled := fromClient("sampled.example.", 4000, time.Second, time.Millisecond)
	elsewhere := exchange("elsewhere.example.", clientNS, nodeNS, clientIP, upstreamIP, 5000, time.Second, 0)
	for _, tr := range assemble(known, record(known, 10*time.Microsecond, 900*time.Microsecond), lost, silent, sampled, elsewhere) {
		if got, want := slices.Contains(tr.Gaps, trace.GapNotRecorded), tr.QName == "lost.example."; got != want {
			t.Errorf("%s: gaps %v", tr.QName, tr.Gaps)
		}
	}
}

func TestRetransmissionRecordedTwice(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 2*time.Second)
	ex.Transmissions = 2
	see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, time.Second)
	traces := assemble(ex, record(ex, 10*time.Microsecond, 1900*time.Millisecond), record(ex, time.Second+10*time.Microsecond, 900*time.Millisecond))
	if len(traces) != 1 || len(traces[0].Gaps) != 1 || !strings.Contains(traces[0].Gaps[0], "recorded this query 2 times") {
		t.Fatalf("%d traces, gaps %v", len(traces), traces[0].Gaps)
	}
}

func TestLaterExchangeReplacesEarlier(t *testing.T) {
	early, full := fromClient("a.example.", 1000, 0, 0), fromClient("a.example.", 1000, 0, 6*time.Second)
	traces := assemble(early, full)
	if len(traces) != 1 || traces[0].Outcome != trace.OutcomeAnswered {
		t.Fatalf("%d traces, %s", len(traces), traces[0].Outcome)
	}
}

// Both sides of a step of the trace id's time are one lookup.
func TestAcrossTheStep(t *testing.T) {
	step := time.Unix(7_000_000*trace.StepSeconds, 0).Sub(epoch)
	ex := fromClient("a.example.", 1000, step-5*time.Microsecond, time.Millisecond)
	q := record(ex, 10*time.Microsecond, 900*time.Microsecond)
	if ex.TraceID == q.TraceID {
		t.Fatal("the test does not cross a step")
	}
	if traces := assemble(ex, q); len(traces) != 1 || traces[0].Query == nil {
		t.Fatalf("%d traces", len(traces))
	}
}

// The server worked on the retransmission too: its upstream exchange goes with
// the lookup, though only the first record's attempts are numbered.
func TestRetransmissionHasItsUpstreamExchange(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 400*time.Millisecond)
	ex.Transmissions = 2
	see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 250*time.Millisecond)
	first := record(ex, 10*time.Microsecond, 399*time.Millisecond, attempt(1, 100*time.Microsecond, 398*time.Millisecond, trace.OutcomeOK))
	second := record(ex, 250*time.Millisecond, 399*time.Millisecond, attempt(1, 100*time.Microsecond, 398*time.Millisecond, trace.OutcomeOK))
	upstreamQueries := []*trace.Exchange{
		toUpstream("a.example.", 2000, 200*time.Microsecond, 397*time.Millisecond),
		toUpstream("a.example.", 3000, 250*time.Millisecond+200*time.Microsecond, 397*time.Millisecond),
	}
	for _, records := range [][]trace.Record{
		{ex, first, upstreamQueries[0], second, upstreamQueries[1]}, {upstreamQueries[1], second, first, upstreamQueries[0], ex}, {second, ex, upstreamQueries[0], first, upstreamQueries[1]},
	} {
		traces := assemble(records...)
		if len(traces) != 1 || len(traces[0].Upstreams) != 2 || traces[0].Query != first {
			t.Fatalf("%d traces: %+v", len(traces), traces[0].Upstreams)
		}
		for i, u := range traces[0].Upstreams {
			if u.Join != trace.JoinExact || u.Exchange != upstreamQueries[i] || (u.Attempt != nil) != (i == 0) {
				t.Errorf("upstream %d: %+v", i, u)
			}
		}
	}
}
