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
		{"it resets each connection, and is asked again at once", func() []trace.Record {
			ex, q := lookup(ms, attempt(1, 100*us, 200*us, trace.OutcomeError), attempt(2, 305*us, 200*us, trace.OutcomeError))
			return []trace.Record{ex, q, with(toUpstream(name, 2000, 180*us, 0), overTCP, closed), with(toUpstream(name, 2001, 390*us, 0), overTCP, closed)}
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

// A lookup whose upstream refused it is reported soon, if that is seen; one whose upstream is
// silent when its exchange must have come.
func TestRefusedIsReportedSoon(t *testing.T) {
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
