package assemble

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// live assembles records as they come to a running tracer: an exchange closes 100 ms
// after its response or a reset, or a second after its timeout; a record comes 50 ms after the end
// of its query.
func live(timeout time.Duration, records ...trace.Record) []*trace.Trace {
	type coming struct {
		at time.Time
		r  trace.Record
	}
	var list []coming
	for _, r := range records {
		c := coming{r: r}
		switch r := r.(type) {
		case *trace.Exchange:
			if c.at = end(r.Time, r.Duration).Add(100 * time.Millisecond); r.Duration == nil && r.Reset == nil {
				c.at = lastQuery(r).Add(timeout + time.Second)
			}
		case *trace.Query:
			c.at = end(r.Time, r.Duration).Add(50 * time.Millisecond)
		case *trace.Refresh:
			c.at = r.Time.Add(refreshTime(r) + 50*time.Millisecond)
		}
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(x, y coming) int { return x.at.Compare(y.at) })
	a := New(Config{Timeout: timeout})
	var traces []*trace.Trace
	for now := epoch.Add(-sec); len(list) > 0 || a.Stats().Pending > 0; now = now.Add(50 * time.Millisecond) {
		for len(list) > 0 && !list[0].at.After(now) {
			if from := serverOfRecord(list[0].r, records); from != nil {
				a.Report(list[0].r, *from)
			} else {
				a.Add(list[0].r)
			}
			list = list[1:]
		}
		traces = append(traces, a.Advance(now)...)
	}
	return traces
}

// serverOfRecord returns the process that sends a server's record; nil of an exchange, and
// where it is not known.
func serverOfRecord(r trace.Record, records []trace.Record) *peer.Process {
	if r.Kind() == trace.KindExchange {
		return nil
	}
	for _, of := range records {
		ex, ok := of.(*trace.Exchange)
		if q, query := r.(*trace.Query); ok && query && fitOf(ex, q) != fits {
			continue
		}
		if ok && ex.Flow == r.Head().Flow && ex.Server != nil && ex.Server.PID != 0 {
			return &peer.Process{PID: ex.Server.PID}
		}
	}
	return nil
}

// everyWay assembles records live and, in many orders, at once.
func everyWay(t *testing.T, records []trace.Record, check func(t *testing.T, traces []*trace.Trace)) {
	t.Helper()
	// The servers are known by what they answered before.
	const before = "before.example."
	records = append(miss(before, 500, -sec), records...)
	of := func(traces []*trace.Trace) []*trace.Trace {
		return slices.DeleteFunc(traces, func(tr *trace.Trace) bool { return tr.QName == before })
	}
	for _, timeout := range []time.Duration{3 * time.Second, 7 * time.Second} {
		t.Run("live "+timeout.String(), func(t *testing.T) { check(t, of(live(timeout, records...))) })
	}
	for seed := range uint64(20) {
		shuffled := slices.Clone(records)
		rand.New(rand.NewPCG(seed, 11)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		t.Run(fmt.Sprint("order ", seed), func(t *testing.T) { check(t, of(assemble(shuffled...))) })
	}
}

// outline writes a trace short: the client's port, and for each upstream entry the
// attempt, its exchanges by port, how they were joined, and what is below.
func outline(tr *trace.Trace) string {
	var b strings.Builder
	switch {
	case tr.Exchange != nil:
		fmt.Fprint(&b, tr.Exchange.ClientPort)
	case tr.Query != nil:
		fmt.Fprint(&b, "record ", tr.Query.ClientPort)
	default:
		b.WriteString("refresh")
	}
	if tr.Exchange != nil && tr.Query != nil {
		b.WriteString(" recorded")
	}
	if tr.Role != "" {
		b.WriteString(" " + tr.Role)
	}
	if tr.Replaces {
		b.WriteString(" again")
	}
	outlineUpstreams(&b, tr.Upstreams)
	return b.String()
}

func outlineUpstreams(b *strings.Builder, upstreams []trace.Upstream) {
	for _, u := range upstreams {
		b.WriteString(" [")
		if u.Attempt != nil {
			fmt.Fprintf(b, "%d: ", u.Attempt.Attempt)
		}
		for _, ex := range u.Earlier {
			fmt.Fprintf(b, "%d then ", ex.ClientPort)
		}
		if u.Exchange != nil {
			fmt.Fprintf(b, "%d ", u.Exchange.ClientPort)
		}
		b.WriteString(u.Join)
		if u.Query != nil {
			b.WriteString(" recorded")
		}
		outlineUpstreams(b, u.Upstreams)
		b.WriteString("]")
	}
}

func outlines(traces []*trace.Trace) string {
	slices.SortStableFunc(traces, func(x, y *trace.Trace) int {
		return cmp.Or(x.Time.Compare(y.Time), slices.Compare(x.Flow[:], y.Flow[:]))
	})
	var lines []string
	for _, tr := range traces {
		lines = append(lines, outline(tr))
	}
	return strings.Join(lines, "\n")
}

const sec = time.Second

// with changes an exchange.
func with(ex *trace.Exchange, changes ...func(*trace.Exchange)) *trace.Exchange {
	for _, change := range changes {
		change(ex)
	}
	return ex
}

func overTCP(ex *trace.Exchange)   { ex.Protocol = "tcp" }
func shortened(ex *trace.Exchange) { ex.Truncated = true }
func closed(ex *trace.Exchange)    { ex.Reset = &trace.Reset{} }
func answers(rcode string) func(*trace.Exchange) {
	return func(ex *trace.Exchange) { ex.RCode = rcode }
}
func refused(ex *trace.Exchange) { ex.ICMP = &trace.ICMP{Type: 3, Code: 3} }
func rejected(ex *trace.Exchange) {
	ex.Rejected = []trace.Rejection{{Why: trace.RejectedMalformed}}
}

// synOnly makes it an attempt to open a connection.
func synOnly(ex *trace.Exchange) {
	ex.QName, ex.QType, ex.QClass, ex.Protocol = "", "", "", "tcp"
	ex.Flow = trace.NewFlow(trace.TransportTCP, netip.AddrPortFrom(ex.ClientIP, ex.ClientPort), 0, 0, 0, nil)
	ex.TraceID = trace.NewTraceID(ex.Time, ex.Flow)
}

// asking makes it ask something else.
func asks(name, qtype string) func(*trace.Exchange) {
	return func(ex *trace.Exchange) { ex.QName, ex.QType = name, qtype }
}

// stampedAs gives an exchange the stamp of an attempt.
func stampedAs(q *trace.Query, attempt int) func(*trace.Exchange) {
	q.Stamped = true
	return func(ex *trace.Exchange) {
		ex.Traceparent = trace.Traceparent{TraceID: q.TraceID, SpanID: trace.NewSpanID(q.TraceID, q.SpanID, trace.RoleAttempt, attempt), Flags: 1}.String()
	}
}

// What forward does with upstreams that fail, as recorded in the lab.
func TestAttemptsAndTheirExchanges(t *testing.T) {
	const name = "a.example."
	us := time.Microsecond
	lookup := func(took time.Duration, attempts ...trace.Attempt) (*trace.Exchange, *trace.Query) {
		ex := fromClient(name, 1000, 0, took)
		return ex, record(ex, 20*us, took-40*us, attempts...)
	}
	asking := func(at trace.Attempt, name, qtype string) trace.Attempt {
		at.QName, at.QType = name, qtype
		return at
	}
	for _, tc := range []struct {
		name    string
		records func() []trace.Record
		want    string
	}{
		{"the only upstream is silent and asked twice", func() []trace.Record {
			ex, q := lookup(4*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, toUpstream(name, 2000, 200*us, 0), toUpstream(name, 2001, 2*sec+180*us, 0)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"silent over TCP", func() []trace.Record {
			ex, q := lookup(4*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 400*us, 0), overTCP), with(toUpstream(name, 2001, 2*sec+400*us, 0), overTCP)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"found closed, then silent, over TCP", func() []trace.Record {
			ex, q := lookup(4*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, with(toUpstream(name, 1999, 300*us, 0), overTCP, closed), with(toUpstream(name, 2000, 400*us, 0), overTCP),
				with(toUpstream(name, 2001, 2*sec+400*us, 0), overTCP)}
		}, "1000 recorded [1: 1999 then 2000 exact] [2: 2001 exact]"},
		{"silent, and the packets of the first attempt were not seen", func() []trace.Record {
			ex, q := lookup(4*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, toUpstream(name, 2001, 2*sec+180*us, 0)}
		}, "1000 recorded [1: none] [2: 2001 exact]"},
		{"it answers too late", func() []trace.Record {
			ex, q := lookup(4*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, toUpstream(name, 2000, 200*us, 2500*ms), toUpstream(name, 2001, 2*sec+180*us, 2500*ms)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"it refuses, and is asked again at once", func() []trace.Record {
			ex, q := lookup(ms, attempt(1, 100*us, 200*us, trace.OutcomeError), attempt(2, 305*us, 200*us, trace.OutcomeError))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), refused), with(toUpstream(name, 2001, 390*us, 0), refused)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"what comes is malformed", func() []trace.Record {
			ex, q := lookup(ms, attempt(1, 100*us, 200*us, trace.OutcomeError), attempt(2, 305*us, 200*us, trace.OutcomeError))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), overTCP, rejected), with(toUpstream(name, 2001, 390*us, 0), overTCP, rejected)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"it goes on from an error, on a busy node", func() []trace.Record {
			ex, q := lookup(20*ms, attempt(1, 100*us, 8*ms, trace.OutcomeFailed), attempt(2, 8200*us, ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 4*ms), answers("REFUSED")), toUpstream(name, 2001, 8300*us, ms/2)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"rejected until the time is over", func() []trace.Record {
			ex, q := lookup(2*sec+ms, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, ms), rejected)}
		}, "1000 recorded [1: 2000 exact]"},
		{"how an attempt ended is not known", func() []trace.Record {
			ex, q := lookup(3*ms, attempt(1, 100*us, ms, ""), attempt(2, 1200*us, ms, trace.OutcomeOK))
			return []trace.Record{ex, q, toUpstream(name, 2000, 180*us, ms/2), toUpstream(name, 2001, 1300*us, ms/2)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"prefer_udp: truncated, then over TCP", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, 4*ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, ms), shortened), with(toUpstream(name, 2001, 1500*us, ms), overTCP)}
		}, "1000 recorded [1: 2000 then 2001 exact]"},
		{"the connection is found closed", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, 4*ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), overTCP, closed), with(toUpstream(name, 2001, 500*us, ms), overTCP)}
		}, "1000 recorded [1: 2000 then 2001 exact]"},
		{"two connections are found closed", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, 4*ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), overTCP, closed), with(toUpstream(name, 2001, 250*us, 0), overTCP, closed),
				with(toUpstream(name, 2002, 500*us, ms), overTCP)}
		}, "1000 recorded [1: 2000 then 2001 then 2002 inferred]"},
		{"no connection comes about", func() []trace.Record {
			ex, q := lookup(ms, attempt(1, 100*us, 200*us, trace.OutcomeError), attempt(2, 305*us, 200*us, trace.OutcomeError))
			return []trace.Record{ex, q, with(toUpstream("", 2000, 180*us, 0), synOnly, closed), with(toUpstream("", 2001, 390*us, 0), synOnly, closed)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"closed, and then no connection comes about", func() []trace.Record {
			ex, q := lookup(sec+ms, attempt(1, 100*us, sec, trace.OutcomeError))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), overTCP, closed), with(toUpstream("", 2001, 390*us, 0), synOnly)}
		}, "1000 recorded [1: 2000 then 2001 exact]"},
		{"another question than the client's", func() []trace.Record {
			ex, q := lookup(5*ms, asking(attempt(1, 100*us, 4*ms, trace.OutcomeOK), "b.example.", ""))
			return []trace.Record{ex, q, with(toUpstream("b.example.", 2000, 180*us, ms))}
		}, "1000 recorded [1: 2000 exact]"},
		{"dns64: no AAAA, then A", func() []trace.Record {
			ex, q := lookup(5*ms, asking(attempt(1, 100*us, ms, trace.OutcomeOK), "", "AAAA"), attempt(2, 1200*us, ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, ms/2), asks(name, "AAAA")), toUpstream(name, 2001, 1250*us, ms/2)}
		}, "1000 recorded [1: 2000 exact] [2: 2001 exact]"},
		{"stamped, whatever was asked and when", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, ms, trace.OutcomeOK), attempt(2, 100*us, ms, trace.OutcomeOK))
			return []trace.Record{ex, q, with(toUpstream("b.example.", 2000, 180*us, ms), stampedAs(q, 2)), with(toUpstream(name, 2001, 200*us, ms), stampedAs(q, 1))}
		}, "1000 recorded [1: 2001 exact] [2: 2000 exact]"},
		{"the server asks for itself", func() []trace.Record {
			ex, q := lookup(ms)
			return []trace.Record{ex, q, toUpstream(".", 2000, 300*ms, ms)}
		}, "1000 recorded\n2000 upstream"},
		{"of the attempts to another address", func() []trace.Record {
			at := attempt(1, 100*us, ms, trace.OutcomeOK)
			at.Address = "192.168.49.9:53"
			ex, q := lookup(5*ms, at)
			return []trace.Record{ex, q, toUpstream(name, 2000, 180*us, ms)}
		}, "1000 recorded [1: none]\n2000 upstream"},
		{"after the attempt", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, ms, trace.OutcomeOK))
			return []trace.Record{ex, q, toUpstream(name, 2000, 3*ms, ms)}
		}, "1000 recorded [1: none]\n2000 upstream"},
		{"one of two that could be it", func() []trace.Record {
			ex, q := lookup(5*ms, attempt(1, 100*us, 4*ms, trace.OutcomeOK))
			return []trace.Record{ex, q, toUpstream(name, 2000, 180*us, ms), toUpstream(name, 2001, 190*us, ms/2)}
		}, "1000 recorded [1: 2000 inferred]\n2001 upstream"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			everyWay(t, tc.records(), func(t *testing.T, traces []*trace.Trace) {
				if got := outlines(traces); got != tc.want {
					t.Errorf("got:\n%s\nwant:\n%s", got, tc.want)
				}
			})
		})
	}
}

// A lookup whose upstream refused it is told soon, if that is seen; one whose upstream is
// silent when its exchange must have come.
func TestRefusedIsToldSoon(t *testing.T) {
	const us = time.Microsecond
	for _, tc := range []struct {
		name     string
		upstream *trace.Exchange
		held     time.Duration
	}{
		{"ICMP error", with(toUpstream("a.example.", 2000, 200*us, 0), refused), sec},
		{"no connection", with(toUpstream("", 2000, 200*us, 0), synOnly, closed), sec},
		{"it says nothing", toUpstream("a.example.", 2000, 200*us, 0), 9 * sec},
	} {
		a := New(Config{})
		ex := fromClient("a.example.", 1000, 0, ms)
		for _, r := range []trace.Record{ex, record(ex, 20*us, ms/2, attempt(1, 100*us, 300*us, trace.OutcomeError)), tc.upstream} {
			a.Add(r)
		}
		early := a.Advance(epoch.Add(tc.held - ms))
		late := a.Advance(epoch.Add(tc.held + sec))
		if soon := tc.held == sec; len(early)+len(late) != 1 || (len(early) == 1) != soon {
			t.Errorf("%s: %d before %s, %d after", tc.name, len(early), tc.held, len(late))
		}
	}
}

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
// upstream exchange, nearly always its own, and none of them is said to be exact.
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
