package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
)

// lookupRecords is one lookup that two nodes saw: the client's node its exchange, the
// server's node the same a moment later, what the server did, and its upstream
// query.
type lookupRecords struct {
	client, server, upstream *trace.Exchange
	query                    *trace.Query
}

func lookup(n int) lookupRecords {
	name := fmt.Sprintf("n%d.", n)
	pod, service := netip.MustParseAddrPort("10.244.0.4:50202"), netip.MustParseAddrPort("10.96.0.10:53")
	server, up := netip.MustParseAddrPort("10.244.1.2:53"), netip.MustParseAddrPort("192.168.49.1:53")
	at := start.Add(time.Duration(n) * time.Second)
	exchange := func(from, to netip.AddrPort, id int, netns uint32, arriving bool, begin, end time.Duration) *trace.Exchange {
		flow := trace.NewFlow(trace.TransportUDP, from, uint16(id), 1, 1, []byte(name))
		e := &trace.Exchange{
			Header: trace.Header{V: trace.Version, Record: trace.KindExchange, Time: at.Add(begin), TraceID: trace.NewTraceID(at, flow), Flow: flow},
			DNS: trace.DNS{ClientIP: from.Addr(), ClientPort: from.Port(), QName: name, QType: "A", QClass: "IN", Protocol: "udp", ID: uint16(id),
				RCode: "NOERROR", Duration: trace.SecondsPtr(end - begin)},
			ServerIP: to.Addr(), ServerPort: to.Port(), Outcome: trace.OutcomeAnswered, Transmissions: 1,
		}
		// A client sends first; a server receives first.
		directions := [2]string{trace.DirectionTX, trace.DirectionRX}
		if arriving {
			directions = [2]string{trace.DirectionRX, trace.DirectionTX}
		}
		e.Path.Append(trace.Sighting{Message: trace.MessageQuery, Device: trace.Device{NetNS: netns, IfName: "eth0"}, Direction: directions[0], Src: from, Dst: to})
		e.Path.Append(trace.Sighting{Offset: trace.Seconds(end - begin), Message: trace.MessageResponse, Device: trace.Device{NetNS: netns, IfName: "eth0"}, Direction: directions[1], Src: to, Dst: from})
		query, response := trace.MilestoneAt(0), trace.MilestoneAt(1)
		if arriving {
			e.Milestones = trace.Milestones{Query: trace.Progress{Left: trace.NotObservable, Arrived: query}, Response: trace.Progress{Left: response, Arrived: trace.NotObservable}}
		} else {
			e.Milestones = trace.Milestones{Query: trace.Progress{Left: query, Arrived: trace.NotObservable}, Response: trace.Progress{Left: trace.NotObservable, Arrived: response}}
		}
		return e
	}
	l := lookupRecords{client: exchange(pod, service, n, 1, false, 0, 9*time.Millisecond), server: exchange(pod, server, n, 5, true, 2*time.Millisecond, 7*time.Millisecond)}
	l.upstream = exchange(netip.AddrPortFrom(server.Addr(), uint16(20000+n)), up, n+1000, 5, false, 4*time.Millisecond, 6*time.Millisecond)
	l.server.NAT = &trace.NAT{ServerIP: server.Addr(), Source: trace.NATConntrack}
	l.query = &trace.Query{Header: l.server.Header, DNS: l.server.DNS, ServerIP: server.Addr(), ServerPort: 53, Outcome: trace.OutcomeAnswered, AnsweredBy: "forward",
		Cache: trace.CacheMiss, Upstreams: []trace.Attempt{{Attempt: 1, Address: up.String(), Start: 1000, Duration: trace.SecondsPtr(3 * time.Millisecond), Outcome: trace.OutcomeOK, Plugin: "forward"}}}
	l.query.Record, l.query.Time = trace.KindQuery, at.Add(3*time.Millisecond)
	l.query.Duration = trace.SecondsPtr(3500 * time.Microsecond)
	return l
}

func realJoining() Joining {
	return Joining{
		Assemble: func() Assembler { return assemble.New(assemble.Config{}) },
		Diagnose: func(*trace.Trace) []trace.Finding { return nil },
		Now:      func() time.Time { return start.Add(time.Hour) },
	}
}

// joined says what a source makes of records: for each trace its name, whether
// it has the exchange, the query and an upstream exchange.
func joined(t *testing.T, s Source, r Request) string {
	t.Helper()
	var got []string
	if _, err := s.Each(t.Context(), r, func(l Lookup) error {
		text := l.Trace.QName
		if l.Trace.Exchange != nil {
			text += "e"
		}
		if l.Trace.Query != nil {
			text += "q"
		}
		for _, u := range l.Trace.Upstreams {
			if u.Exchange != nil {
				text += "u"
			}
		}
		got = append(got, text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

// However the records come, one lookup is one trace with all there is.
func TestRecordsOfTwoNodesAreJoined(t *testing.T) {
	a, b := lookup(1), lookup(2)
	plain := func(l lookupRecords, upstreams ...trace.Upstream) *trace.Trace {
		return traceOf(l.client, nil, upstreams...)
	}
	whole := func(l lookupRecords) *trace.Trace {
		return traceOf(l.client, l.query, trace.Upstream{Attempt: &l.query.Upstreams[0], Exchange: l.upstream, Join: trace.JoinExact})
	}
	serverSide := func(l lookupRecords) *trace.Trace {
		return traceOf(l.server, l.query, trace.Upstream{Attempt: &l.query.Upstreams[0], Exchange: l.upstream, Join: trace.JoinExact})
	}
	for _, tc := range []struct {
		name    string
		records []trace.Record
		want    string
	}{
		{"a trace", []trace.Record{whole(a)}, "n1.equ"},
		{"the same trace twice", []trace.Record{whole(a), whole(b), whole(a)}, "n1.equ n2.equ"},
		{"a trace and its records", []trace.Record{a.query, whole(a), a.upstream, a.client}, "n1.equ"},
		{"a trace that lacks the server's record", []trace.Record{plain(a), a.query}, "n1.eq"},
		{"and the upstream query", []trace.Record{a.upstream, plain(a), a.server, b.client, a.query}, "n1.equ n2.e"},
		{"records alone", []trace.Record{b.upstream, a.upstream, b.server, b.query, a.query, b.client, a.client, a.server}, "n1.equ n2.equ"},
		{"the traces of one node after those of the other", []trace.Record{plain(a), plain(b), serverSide(a), serverSide(b)}, "n1.equ n2.equ"},
	} {
		f := File{Path: "-", Stdin: strings.NewReader(lines(tc.records...)), Stderr: t.Output(), Joining: realJoining()}
		if got := joined(t, f, Request{}); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// A tracer writes an exchange again when more of it comes: a file without traces
// shows one lookup, with all of it.
func TestExchangeWrittenAgain(t *testing.T) {
	l := lookup(1)
	early := *l.client
	early.Path, early.Outcome, early.Duration, early.RCode = trace.Path{}, trace.OutcomeUnanswered, nil, ""
	early.Path.Append(l.client.Path.At(0))
	early.Milestones.Response = trace.Progress{}
	for _, records := range [][]trace.Record{
		{&early, l.client, l.query}, {l.client, &early, l.query}, {l.query, &early, &early, l.client}, {traceOf(l.client, l.query), &early, l.client},
	} {
		f := File{Path: "-", Stdin: strings.NewReader(lines(records...)), Stderr: t.Output(), Joining: realJoining()}
		n := 0
		if _, err := f.Each(t.Context(), Request{}, func(l Lookup) error {
			n++
			if e := l.Trace.Exchange; l.Trace.Query == nil || e == nil || e.Outcome != trace.OutcomeAnswered || e.Path.Len() != 2 {
				t.Errorf("%+v", l.Trace)
			}
			return nil
		}); err != nil || n != 1 {
			t.Errorf("%d lookups, %v", n, err)
		}
	}
}

// A tracer writes a trace again when more of the lookup came: it is shown once, whole, in
// whatever order the two come, and also where a record is joined with it.
func TestTraceWrittenAgain(t *testing.T) {
	l := lookup(1)
	early := *l.client
	early.Path, early.Outcome, early.Duration, early.RCode = trace.Path{}, trace.OutcomeUnanswered, nil, ""
	early.Path.Append(l.client.Path.At(0))
	early.Milestones.Response = trace.Progress{}
	first := traceOf(&early, nil)
	whole := *l.client
	whole.Replaces = true
	again := traceOf(&whole, l.query, trace.Upstream{Attempt: &l.query.Upstreams[0], Exchange: l.upstream, Join: trace.JoinExact})
	again.Replaces = true
	for _, tc := range []struct {
		records []trace.Record
		want    string
	}{
		{[]trace.Record{first, again}, "n1.equ"},
		{[]trace.Record{again, first}, "n1.equ"},
		{[]trace.Record{first, again, again, first}, "n1.equ"},
		{[]trace.Record{first, again, l.server}, "n1.equ"},
		{[]trace.Record{&early, &whole, l.query, l.upstream}, "n1.equ"},
		{[]trace.Record{&whole, l.query}, "n1.eq"},
	} {
		f := File{Path: "-", Stdin: strings.NewReader(lines(tc.records...)), Stderr: t.Output(), Joining: realJoining()}
		if got := joined(t, f, Request{}); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
		if _, err := f.Each(t.Context(), Request{}, func(l Lookup) error {
			if l.Trace.Outcome != trace.OutcomeAnswered || slices.ContainsFunc(l.Trace.Gaps, func(gap string) bool { return strings.Contains(gap, "not known any more") }) {
				t.Errorf("%s, gaps %q", l.Trace.Outcome, l.Trace.Gaps)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// A refresh is shown once, as the tracer made it, also where CoreDNS's own record
// of it comes beside its trace, and the lookup that set it off stays as it was.
func TestRefreshIsShownOnce(t *testing.T) {
	hit := lookup(1)
	r := &trace.Refresh{Header: hit.query.Header, DNS: hit.query.DNS, Cause: "prefetch", Upstreams: hit.query.Upstreams}
	r.Record, r.Time = trace.KindRefresh, r.Time.Add(time.Second)
	later := *hit.upstream
	later.Time = r.Time.Add(time.Millisecond)
	hit.query.Upstreams, hit.query.Cache = nil, trace.CacheHit
	whole := traceOf(hit.client, hit.query)
	background := &trace.Trace{Header: r.Header, QName: r.QName, QType: r.QType, Outcome: trace.OutcomeAnswered,
		Upstreams: []trace.Upstream{{Attempt: &r.Upstreams[0], Exchange: &later, Join: trace.JoinExact}}}
	background.Record = trace.KindTrace
	unseen := *background
	unseen.Upstreams = []trace.Upstream{{Attempt: &r.Upstreams[0], Join: trace.JoinNone}}
	for _, tc := range []struct {
		name    string
		records []trace.Record
		want    string
	}{
		{"its trace", []trace.Record{whole, background}, "n1.eq n1.u"},
		{"its trace and its record", []trace.Record{whole, background, r}, "n1.eq n1.u"},
		{"its record first, and the packets", []trace.Record{r, &later, background, whole}, "n1.eq n1.u"},
		{"its trace twice", []trace.Record{background, background}, "n1.u"},
		{"packets not seen", []trace.Record{&unseen, r, &unseen}, "n1."},
		{"its record alone", []trace.Record{r}, "n1."},
	} {
		for _, follow := range []bool{false, true} {
			f := File{Path: "-", Stdin: strings.NewReader(lines(tc.records...)), Stderr: t.Output(), Joining: realJoining()}
			got := strings.Fields(joined(t, f, Request{Follow: follow, Since: 2 * time.Hour}))
			slices.Sort(got) // followed input passes traces on as they come
			if text := strings.Join(got, " "); text != tc.want {
				t.Errorf("%s, followed %t: got %q, want %q", tc.name, follow, text, tc.want)
			}
		}
	}
}

// Standard input that is followed passes a trace on when it comes, and joins
// single records with those close in time.
func TestFollowedInput(t *testing.T) {
	a, b := lookup(1), lookup(2)
	tr := traceOf(a.client, a.query)
	f := File{Path: "-", Stdin: strings.NewReader(lines(b.query, tr, b.client, b.server, a.client, b.upstream)), Stderr: t.Output(), Joining: realJoining()}
	if got := joined(t, f, Request{Follow: true, Since: 2 * time.Hour}); got != "n1.eq n2.equ" {
		t.Errorf("got %q", got)
	}
}

// Memory is bounded also for records that are all of one moment: the oldest go
// on, and none is lost.
func TestJoinerIsBounded(t *testing.T) {
	a := &assembler{}
	n := 0
	j := newJoiner(joiningWith(a), func(*trace.Trace, []byte) error { n++; return nil })
	line := make([]byte, 1<<20)
	for i := range 100 {
		e := exchange(1)
		e.Flow[0] = byte(i)
		if err := j.add(e, line); err != nil {
			t.Fatal(err)
		}
		if j.memory > defaultMemory {
			t.Fatalf("%d bytes held", j.memory)
		}
	}
	if err := j.flush(); err != nil || n != 100 {
		t.Errorf("%d of 100, %v", n, err)
	}
	for i := range 10000 {
		e := exchange(i)
		e.Flow[1], e.Flow[2] = byte(i), byte(i>>8)
		if err := j.add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(j.flows) > 100 || len(j.waiting) > 100 {
		t.Errorf("%d flows, %d records held", len(j.flows), len(j.waiting))
	}
}
