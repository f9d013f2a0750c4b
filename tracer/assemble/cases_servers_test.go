package assemble

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// recordAt makes the record of a server that has an address and a span.
func recordAt(ex *trace.Exchange, after, took time.Duration, addr netip.Addr, attempts ...trace.Attempt) *trace.Query {
	q := record(ex, after, took, attempts...)
	q.ServerIP, q.ServerPort = addr, 53
	q.SpanID = trace.NewSpanID(q.TraceID, trace.SpanID{}, trace.RoleServer, 0)
	return q
}

// Pod, node-local cache, cluster DNS, and an upstream that is silent: both servers try
// for as long, so that the second goes on with what the first gave up.
func TestChainWithASilentUpstream(t *testing.T) {
	const name, us = "a.example.", time.Microsecond
	cache := netip.MustParseAddr("169.254.20.10")
	for _, stamp := range []bool{false, true} {
		var records []trace.Record
		outer := exchange(name, clientNS, cacheNS, clientIP, cache, 1000, 0, 6*sec+ms)
		var tries []trace.Attempt
		for i := range 3 {
			at := attempt(i+1, time.Duration(i)*2*sec+100*us+time.Duration(10*i)*us, 2*sec, trace.OutcomeTimeout)
			at.Address = "10.244.0.2:53"
			tries = append(tries, at)
		}
		outerRecord := recordAt(outer, 20*us, 6*sec+500*us, cache, tries...)
		outerRecord.Outcome = trace.OutcomeError
		records = append(records, outer, outerRecord)
		for i := range 3 {
			start := tries[i].Start.Duration() + 100*us
			inner := with(exchange(name, cacheNS, serverNS, cache, serverIP, uint16(2000+i), start, 0), overTCP)
			if stamp {
				with(inner, stampedAs(outerRecord, i+1))
			}
			var attempts []trace.Attempt
			for j := range 3 {
				attempts = append(attempts, attempt(j+1, time.Duration(j)*(2*sec+400*us)+100*us, 2*sec, trace.OutcomeTimeout))
				records = append(records, toUpstream(name, uint16(3000+10*i+j), start+time.Duration(j)*(2*sec+400*us)+250*us, 0))
			}
			q := recordAt(inner, 50*us, 6*sec+100*us, serverIP, attempts...)
			q.Protocol = "tcp"
			if stamp {
				q.TraceID = outerRecord.TraceID
			}
			records = append(records, inner, q)
		}
		everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
			if len(traces) != 1 {
				t.Fatalf("stamped %t: %d traces:\n%s", stamp, len(traces), outlines(traces))
			}
			got := outline(traces[0])
			got = strings.ReplaceAll(got, "inferred", "exact") // the second and third attempts of the cluster's server overlap
			want := "1000 recorded"
			for i := range 3 {
				want += fmt.Sprintf(" [%d: %d exact recorded", i+1, 2000+i)
				for j := range 3 {
					want += fmt.Sprintf(" [%d: %d exact]", j+1, 3000+10*i+j)
				}
				want += "]"
			}
			if got != want {
				t.Errorf("stamped %t: got:\n%s\nwant:\n%s", stamp, got, want)
			}
		})
	}
}

// Fifty clients ask for one name at once, and there is no cache: each lookup has one
// upstream exchange, almost always its own, and none of them is said to be exact.
func TestFiftyAtOnce(t *testing.T) {
	var records []trace.Record
	for i := range 50 {
		records = append(records, miss("same.example.", uint16(1000+2*i), time.Duration(i)*20*time.Microsecond)...)
	}
	everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
		if len(traces) != 50 {
			t.Fatalf("%d traces", len(traces))
		}
		wrong := 0
		for _, tr := range traces {
			if len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil {
				t.Fatalf("not joined: %s", outline(tr))
			}
			if tr.Upstreams[0].Exchange.ClientPort != tr.Exchange.ClientPort+1 {
				wrong++
			}
			if wrong > 0 && tr.Upstreams[0].Join == trace.JoinExact {
				t.Errorf("%s", outline(tr))
			}
		}
		if wrong > 0 {
			t.Errorf("%d have another's exchange, though they were sent in order", wrong)
		}
	})
}

// Two CoreDNS processes share a namespace, an upstream and a question.
func TestByProcess(t *testing.T) {
	const us = time.Microsecond
	var records []trace.Record
	for i := range 2 {
		as := func(ex *trace.Exchange) *trace.Exchange {
			if ex.Server != nil {
				ex.Server.PID = serverPID + i
			} else {
				ex.Client.PID = serverPID + i
			}
			return ex
		}
		// That which was asked first asks last.
		ex := as(fromClient("a.example.", uint16(1000+i), time.Duration(i)*20*us, 2*ms))
		records = append(records, ex, record(ex, 20*us, 1900*us, attempt(1, 100*us, 1500*us, trace.OutcomeOK)),
			as(toUpstream("a.example.", uint16(2000+i), 300*us-time.Duration(i)*50*us, ms)))
	}
	everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
		if got, want := outlines(traces), "1000 recorded [1: 2000 exact]\n1001 recorded [1: 2001 exact]"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// Servers without the plugin: all that they ask while they have the query is of it.
func TestServersWithoutRecords(t *testing.T) {
	const name, us = "a.example.", time.Microsecond
	other := netip.MustParseAddr("192.168.49.3")
	to := func(addr netip.Addr, port uint16, start, took time.Duration) *trace.Exchange {
		return exchange(name, serverNS, nodeNS, serverIP, addr, port, start, took)
	}
	for _, tc := range []struct {
		name    string
		records []trace.Record
		want    string
	}{
		{"unbound asks three times", []trace.Record{
			fromClient(name, 1000, 0, 5*ms), toUpstream(name, 2000, ms, ms), toUpstream(name, 2001, 2100*us, ms), toUpstream(name, 2002, 3200*us, ms),
		}, "1000 [2000 inferred] [2001 inferred] [2002 inferred]"},
		{"dnsmasq asks all servers from one socket, and one is late", []trace.Record{
			fromClient(name, 1000, 0, 2*ms), to(upstreamIP, 2000, 100*us, ms), to(other, 2000, 101*us, 200*ms),
		}, "1000 [2000 inferred] [2000 inferred]"},
		{"truncated, then over TCP with the same ID", []trace.Record{
			fromClient(name, 1000, 0, 5*ms), with(toUpstream(name, 2000, 100*us, ms), shortened), with(toUpstream(name, 2001, 1200*us, ms), overTCP),
		}, "1000 [2000 inferred] [2001 inferred]"},
		{"two clients, and each is asked for", []trace.Record{
			fromClient(name, 1000, 0, 5*ms), fromClient(name, 1001, 200*us, 5*ms), toUpstream(name, 2000, 100*us, ms), toUpstream(name, 2001, 300*us, ms),
		}, "1000 [2000 inferred]\n1001 [2001 inferred]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			everyWay(t, tc.records, func(t *testing.T, traces []*trace.Trace) {
				if got := outlines(traces); got != tc.want {
					t.Errorf("got:\n%s\nwant:\n%s", got, tc.want)
				}
			})
		})
	}
}

// A transparent proxy asks with the client's own address, port and ID: the exchanges
// have one flow, and go to two servers.
func TestTransparentProxy(t *testing.T) {
	const us = time.Microsecond
	gateway := netip.MustParseAddr("10.244.0.1")
	ex := exchange("a.example.", clientNS, nodeNS, clientIP, gateway, 1000, 0, 4*ms)
	behind := exchange("a.example.", nodeNS, serverNS, clientIP, serverIP, 1000, 200*us, 3*ms)
	q := recordAt(behind, 20*us, 2900*us, serverIP, attempt(1, 100*us, 2*ms, trace.OutcomeOK))
	everyWay(t, []trace.Record{ex, behind, q, toUpstream("a.example.", 2000, 500*us, ms)}, func(t *testing.T, traces []*trace.Trace) {
		if got, want := outlines(traces), "1000 [1000 inferred recorded [1: 2000 exact]]"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// What a server behind a proxy goes through is in the lookup of the proxy's client, which
// waits for it.
func TestTransparentProxyWithASilentUpstream(t *testing.T) {
	const us = time.Microsecond
	ex := exchange("a.example.", clientNS, nodeNS, clientIP, serverIP, 1000, 0, 4*sec+4*ms)
	behind := exchange("a.example.", nodeNS, serverNS, clientIP, serverIP, 1000, 200*us, 4*sec+3*ms)
	q := recordAt(behind, 20*us, 4*sec+2900*us, serverIP, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
	records := []trace.Record{ex, behind, q, toUpstream("a.example.", 2000, 400*us, 0), toUpstream("a.example.", 2001, 2*sec+400*us, 0)}
	everyWay(t, records, func(t *testing.T, traces []*trace.Trace) {
		if got, want := outlines(traces), "1000 [1000 inferred recorded [1: 2000 exact] [2: 2001 exact]]"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// A query that died before it came to a server led to nothing, also where its sender asked
// itself, and asks again: CoreDNS does so before it serves (plugin loop).
func TestDeadQueryLedToNothing(t *testing.T) {
	itself := func(port uint16, start, took time.Duration) *trace.Exchange {
		ex := exchange("1.2.", serverNS, serverNS, serverIP, serverIP, port, start, took)
		ex.Client = &trace.Endpoint{Process: "coredns", PID: serverPID}
		return ex
	}
	dead := itself(2000, 0, 0)
	dead.Outcome, dead.Drops = trace.OutcomeDropped, []trace.Drop{{Message: trace.MessageQuery, Reason: "NO_SOCKET", NetNS: serverNS, Offset: 1}}
	everyWay(t, []trace.Record{dead, itself(2001, sec, ms)}, func(t *testing.T, traces []*trace.Trace) {
		if got := outlines(traces); got != "2000 upstream\n2001 upstream" {
			t.Errorf("got:\n%s", got)
		}
	})
}

// Over TCP a server may read a query when it has answered the one before it, and write its
// record half a minute later.
func TestRecordOfAQueryBehindAnother(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		ex := fromClient("a.example.", 1000, 0, 0)
		ex.Protocol = protocol
		q := record(ex, 22*sec, 6*sec)
		a := New(Config{Timeout: 3 * sec})
		a.Add(ex)
		reported := len(a.Advance(epoch.Add(20 * sec)))
		a.Add(q)
		traces := a.Flush()
		again := reported == 1 && len(traces) == 1 && traces[0].Replaces && traces[0].Exchange != nil && traces[0].Query != nil
		if again != (protocol == "tcp") {
			t.Errorf("%s: reported %d times, then %s", protocol, reported, outlines(traces))
		}
	}
}

// A server that forwards to itself, until it treats no more queries at once: all its attempts
// are under way together, microseconds apart, and each has a query.
func TestServerThatAsksItselfFast(t *testing.T) {
	const name, us, depth = "a.example.", time.Microsecond, 20
	refuses := func(ex *trace.Exchange) { ex.RCode = "REFUSED" }
	var records []trace.Record
	for i := range depth + 1 {
		start, took := time.Duration(i)*14*us, time.Duration(depth-i)*25*us+20*us
		ex := exchange(name, serverNS, serverNS, serverIP, serverIP, uint16(2000+i), start, took)
		if i == 0 {
			ex = fromClient(name, 1000, 0, took)
		}
		with(ex, refuses)
		at := attempt(1, us, took-8*us, trace.OutcomeOK)
		at.Address = netip.AddrPortFrom(serverIP, 53).String()
		q := record(ex, 4*us, took-5*us, at)
		if i == depth {
			q.Upstreams, q.Outcome = nil, trace.OutcomeError
		}
		q.ServerIP = netip.Addr{}
		records = append(records, ex, q)
	}
	check := func(t *testing.T, traces []*trace.Trace) {
		t.Helper()
		for _, tr := range traces {
			if tr.Exchange == nil || tr.Exchange.ClientPort != 1000 {
				continue
			}
			levels := 0
			for ups := tr.Upstreams; len(ups) > 0; ups = ups[0].Upstreams {
				if levels++; ups[0].Exchange == nil || ups[0].Exchange.ClientPort != uint16(2000+levels) {
					t.Fatalf("level %d: %s", levels, outline(tr))
				}
			}
			if levels < 2 {
				t.Errorf("%d levels: %s", levels, outline(tr))
			}
			return
		}
		t.Error("the client's lookup is missing")
	}
	everyWay(t, records, check)
	// A round of the tracer may end between any two of them.
	for split := range depth + 1 {
		for _, recordsAt := range []time.Duration{20 * ms, 110 * ms, 170 * ms} {
			var list []comes
			for i, r := range records {
				switch _, isQuery := r.(*trace.Query); {
				case isQuery:
					list = append(list, comes{recordsAt, r})
				case i/2 > split:
					list = append(list, comes{100 * ms, r})
				default:
					list = append(list, comes{150 * ms, r})
				}
			}
			slices.SortStableFunc(list, func(x, y comes) int { return cmp.Compare(x.at, y.at) })
			before := slices.Collect(func(yield func(comes) bool) {
				for _, r := range miss("before.example.", 500, -sec) {
					yield(comes{0, r})
				}
			})
			t.Run(fmt.Sprint(split, recordsAt), func(t *testing.T) { check(t, assembleLive(&openUntil{}, append(before, list...)...)) })
		}
	}
}
