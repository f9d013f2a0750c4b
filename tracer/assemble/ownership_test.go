package assemble

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

const (
	ownCgroup   = "/kubepods.slice/kubepods-poda.slice/cri-containerd-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.scope"
	otherCgroup = "/kubepods.slice/kubepods-podb.slice/cri-containerd-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.scope"
	attackerPID = 666
)

var ownContainer = strings.Repeat("a", 64)

// reported assembles exchanges and one record of a sender, which comes first, or last.
func reported(first bool, r trace.Record, from peer.Process, exchanges ...*trace.Exchange) (*Assembler, []*trace.Trace) {
	a := New(Config{})
	if first {
		a.Report(r, from)
	}
	for _, ex := range exchanges {
		a.Add(ex)
	}
	if !first {
		a.Report(r, from)
	}
	return a, a.Flush()
}

func servedBy(by *trace.Endpoint) func(*trace.Exchange) {
	return func(ex *trace.Exchange) { ex.Server = by }
}

// A record is joined if its sender is the process, or the cgroup, that packets show as the
// server; it is not where they show another; and where they do not tell it is shown, and
// its attempts are not believed.
func TestWhoseRecordItIs(t *testing.T) {
	const us = time.Microsecond
	server := &trace.Endpoint{PID: serverPID, Cgroup: ownCgroup}
	byCgroup := &trace.Endpoint{Cgroup: ownCgroup}
	for _, tc := range []struct {
		name   string
		server *trace.Endpoint
		from   peer.Process
		want   ownership
	}{
		{"the process", server, peer.Process{PID: serverPID}, own},
		{"the process, which was there before", server, peer.Process{PID: serverPID, Started: epoch.Add(-sec)}, own},
		{"another process, which has its number by now", server, peer.Process{PID: serverPID, Started: epoch.Add(sec)}, foreign},
		{"another process", server, peer.Process{PID: attackerPID}, foreign},
		{"another process of its cgroup", server, peer.Process{PID: attackerPID, Cgroup: ownCgroup}, foreign},
		{"one of another PID namespace", server, peer.Process{}, unknown},
		{"one of another PID namespace, in the server's container", server, peer.Process{Container: ownContainer}, own},
		{"one of another PID namespace, in another container", server, peer.Process{Cgroup: otherCgroup, Container: strings.Repeat("b", 64)}, foreign},
		{"nobody knows the server", nil, peer.Process{PID: serverPID}, unknown},
		{"the cgroup", byCgroup, peer.Process{PID: serverPID, Cgroup: ownCgroup}, own},
		{"the container, of which the path is unknown", byCgroup, peer.Process{PID: serverPID, Container: ownContainer}, own},
		{"another cgroup", byCgroup, peer.Process{PID: attackerPID, Cgroup: otherCgroup}, foreign},
		{"the sender's cgroup is unknown", byCgroup, peer.Process{PID: attackerPID}, unknown},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(tc.name, " ", first), func(t *testing.T) {
				ex := with(fromClient("a.example.", 1000, 0, 2*ms), servedBy(tc.server))
				upstreamQuery := with(toUpstream("a.example.", 1001, 200*us, ms), func(ex *trace.Exchange) { ex.Client = &trace.Endpoint{PID: serverPID} })
				q := record(ex, 20*us, 1900*us, attempt(1, 100*us, 1500*us, trace.OutcomeOK))
				a, traces := reported(first, q, tc.from, upstreamQuery, ex)
				if len(traces) != 1 {
					t.Fatalf("%d traces", len(traces))
				}
				tr := traces[0]
				join, attempts := "", 0
				for _, u := range tr.Upstreams {
					join = u.Join
					if u.Attempt != nil {
						attempts++
					}
				}
				s := a.Stats()
				switch tc.want {
				case own:
					if tr.Query != q || q.Unverified || join != trace.JoinExact || attempts != 1 || s.Foreign+s.Unverified != 0 {
						t.Errorf("%s, %+v", tr.AppendJSON(nil), s)
					}
				case unknown:
					if tr.Query != q || !q.Unverified || join != trace.JoinInferred || attempts != 0 || s.Foreign != 0 || s.Unverified != 1 || len(tr.Gaps) != 1 {
						t.Errorf("%s, %+v", tr.AppendJSON(nil), s)
					}
				case foreign:
					if tr.Query != nil || attempts != 0 || s.Foreign != 1 || s.Unverified != 0 || len(tr.Gaps) != 0 {
						t.Errorf("%s, %+v", tr.AppendJSON(nil), s)
					}
				}
			})
		}
	}
}

// A sender of which nothing is known does not take the place of the server's own record,
// whoever comes first.
func TestAStrangersRecordMakesRoom(t *testing.T) {
	for _, first := range []bool{true, false} {
		ex := fromClient("a.example.", 1000, 0, 2*ms)
		forged, q := record(ex, ms, ms), record(ex, ms, ms)
		forged.Error, forged.SpanID = "forged", trace.SpanID{9}
		a := New(Config{})
		a.Add(ex)
		if first {
			a.Report(forged, peer.Process{})
		}
		a.Report(q, peer.Process{PID: serverPID})
		if !first {
			a.Report(forged, peer.Process{})
		}
		if traces := a.Flush(); len(traces) != 1 || traces[0].Query != q || q.Unverified {
			t.Errorf("forged first %v: %d traces", first, len(traces))
		}
	}
}

// A record waits for the exchange of its server, while that of a proxy is known whose process
// is not: a proxy that has the kernel pass on what comes reads nothing.
func TestARecordBehindAProxy(t *testing.T) {
	const us = time.Microsecond
	ex := exchange("a.example.", clientNS, nodeNS, clientIP, serverIP, 1000, 0, 4*ms)
	behind := exchange("a.example.", nodeNS, serverNS, clientIP, serverIP, 1000, 200*us, 3*ms)
	behind.Server = &trace.Endpoint{PID: serverPID}
	for _, order := range []string{"pbr", "prb", "bpr", "brp", "rpb", "rbp"} {
		q := recordAt(behind, 20*us, 2900*us, serverIP)
		a := New(Config{})
		for _, next := range order {
			switch next {
			case 'p':
				a.Add(ex.Clone())
			case 'b':
				a.Add(behind.Clone())
			case 'r':
				a.Report(q, peer.Process{PID: serverPID})
			}
		}
		if got, want := outlines(a.Flush()), "1000 [1000 inferred recorded]"; got != want || q.Unverified {
			t.Errorf("%s: got %s, want %s", order, got, want)
		}
	}
}

// A process that serves one address has no say about another's.
func TestAnotherServersRecord(t *testing.T) {
	const us = time.Microsecond
	attackerIP := netip.MustParseAddr("10.244.0.66")
	its := exchange("its.example.", clientNS, cacheNS, clientIP, attackerIP, 900, -sec, ms)
	its.Server = &trace.Endpoint{PID: attackerPID}
	for _, addr := range []netip.Addr{serverIP, attackerIP, {}} {
		ex := fromClient("a.example.", 1000, 0, 2*ms)
		q := recordAt(ex, 20*us, 1900*us, addr, attempt(1, 100*us, 1500*us, trace.OutcomeTimeout))
		for _, first := range []bool{true, false} {
			_, traces := reported(first, q, peer.Process{PID: attackerPID}, its, toUpstream("a.example.", 1001, 200*us, ms), ex)
			for _, tr := range traces {
				if tr.Exchange == ex && (tr.Query != nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Attempt != nil) {
					t.Errorf("%s: %s", addr, tr.AppendJSON(nil))
				}
				if tr.Query == q && (addr == serverIP || !q.Unverified || len(tr.Upstreams) != 0) {
					t.Errorf("%s: %s", addr, tr.AppendJSON(nil))
				}
			}
		}
	}
}

// A record of a query that nobody sent makes a trace only of a process that is known to be
// a server, and nothing can be concluded from it unless packets of its attempts were seen.
func TestARecordAlone(t *testing.T) {
	const us = time.Microsecond
	before := fromClient("before.example.", 900, -sec, ms)
	ex := fromClient("a.example.", 1000, 0, 2*ms) // not seen
	upstreamQuery := toUpstream("a.example.", 1001, 200*us, ms)
	for _, tc := range []struct {
		name          string
		from          int
		upstreamQuery bool
		traces        int
		unverified    bool
	}{
		{"a stranger", attackerPID, false, 0, false},
		{"a stranger, while the server asks", attackerPID, true, 0, false},
		{"the server", serverPID, false, 1, true},
		{"the server, whose attempt was seen", serverPID, true, 1, false},
	} {
		for _, first := range []bool{true, false} {
			q := record(ex, 20*us, 1900*us, attempt(1, 100*us, 1500*us, trace.OutcomeOK))
			exchanges := []*trace.Exchange{before}
			if tc.upstreamQuery {
				exchanges = append(exchanges, upstreamQuery)
			}
			a, traces := reported(first, q, peer.Process{PID: tc.from}, exchanges...)
			of := slices.DeleteFunc(traces, func(tr *trace.Trace) bool { return tr.Query != q })
			if len(of) != tc.traces || a.Stats().Foreign != uint64(1-tc.traces) {
				t.Errorf("%s, %v: %d traces, %+v", tc.name, first, len(of), a.Stats())
				continue
			}
			if tc.traces == 0 {
				continue
			}
			if tr := of[0]; q.Unverified != tc.unverified || tc.unverified == (len(tr.Upstreams) == 1) {
				t.Errorf("%s, %v: %s", tc.name, first, tr.AppendJSON(nil))
			}
		}
	}
	for _, from := range []int{attackerPID, serverPID} {
		r := refreshOf(record(ex, 20*us, ms), ms, attempt(1, 0, ms, trace.OutcomeTimeout))
		_, traces := reported(false, r, peer.Process{PID: from}, before)
		for _, tr := range traces {
			if tr.Exchange == nil && (from == attackerPID || len(tr.Upstreams) != 0) {
				t.Errorf("process %d: %s", from, tr.AppendJSON(nil))
			}
		}
	}
}

// What a file says of a record's sender stands.
func TestUnverifiedFromAFile(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, 2*ms)
	q := record(ex, ms, ms, attempt(1, 0, ms, trace.OutcomeTimeout))
	q.Unverified = true
	traces := assemble(q, ex)
	if len(traces) != 1 || traces[0].Query != q || len(traces[0].Upstreams) != 0 {
		t.Errorf("%d traces: %s", len(traces), traces[0].AppendJSON(nil))
	}
}

// What a record says of the time moves nothing: others wait as long as they have to.
func TestARecordMovesNoClock(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, 5 * time.Second} {
		a := New(Config{})
		a.Advance(epoch)
		for i, from := range []int{attackerPID, serverPID} {
			q := record(fromClient(fmt.Sprintf("forged%d.example.", i), 1100, ahead, ms), 0, time.Hour)
			a.Report(q, peer.Process{PID: from})
			a.Report(refreshOf(q, time.Hour), peer.Process{PID: from})
		}
		parts := miss("a.example.", 1000, 0)
		a.Add(parts[0])
		a.Add(parts[2])
		if n := len(a.Advance(epoch.Add(100 * ms))); n != 0 {
			t.Errorf("%s ahead: passed on without the record", ahead)
		}
		a.Report(parts[1], peer.Process{PID: serverPID})
		traces := a.Advance(epoch.Add(2 * sec))
		if len(traces) != 1 || traces[0].Query == nil || traces[0].Upstreams[0].Join != trace.JoinExact {
			t.Errorf("%s ahead: %d traces", ahead, len(traces))
		}
	}
}

// Many records of one query take no more than a few.
func TestManyRecordsOfOneQuery(t *testing.T) {
	a := New(Config{})
	ex := fromClient("a.example.", 1000, 0, ms)
	const many = 100_000
	for i := range many {
		q := record(ex, time.Duration(i)*time.Microsecond, ms)
		q.SpanID = trace.SpanID{1, byte(i >> 16), byte(i >> 8), byte(i)}
		a.Report(q, peer.Process{PID: attackerPID})
		r := refreshOf(q, time.Duration(i)*time.Microsecond)
		a.Report(r, peer.Process{PID: attackerPID})
	}
	if s := a.Stats(); s.Pending > 2*maxOfSender || s.Foreign != 2*(many-maxOfSender) {
		t.Errorf("%+v", s)
	}
}

// Records of strangers have a room of their own: however many come, nothing is passed on
// early because of them, and those that a server sends until it is known as one are joined.
func TestStrangersTakeNoRoom(t *testing.T) {
	const bytes = 2 << 20
	a := New(Config{MaxBytes: bytes})
	var parts []trace.Record
	for i := range 100 {
		all := miss(fmt.Sprintf("n%d.example.", i), uint16(1000+2*i), 0)
		a.Report(all[1], peer.Process{PID: serverPID})
		parts = append(parts, all[0], all[2])
	}
	for i := range 20_000 {
		q := record(fromClient(fmt.Sprintf("forged%d.example.", i), uint16(2000+i), 0, ms), 0, ms, attempt(1, 0, ms, trace.OutcomeTimeout))
		a.Report(q, peer.Process{PID: attackerPID})
		if i == 20 {
			for _, ex := range parts {
				a.Add(ex)
			}
		}
		if s := a.Stats(); s.Bytes > bytes || s.Evicted != 0 {
			t.Fatalf("after %d: %+v", i, s)
		}
	}
	whole := 0
	for _, tr := range a.Flush() {
		if tr.Query != nil && len(tr.Upstreams) == 1 && tr.Upstreams[0].Join == trace.JoinExact {
			whole++
		}
	}
	if s := a.Stats(); whole != 100 || s.Foreign != 20_000 {
		t.Errorf("%d of 100 are whole, %+v", whole, s)
	}
}

// The first query of a server stays without a response: its exchange is over long after
// the record and the upstream query came, and shows before then who read it.
func TestRecordOfAQueryUnderWay(t *testing.T) {
	for _, from := range []int{serverPID, attackerPID} {
		open := &openUntil{reader: serverPID, record: true, until: epoch.Add(8 * time.Second)}
		a := New(Config{Timeout: 7 * time.Second, Open: open})
		ex := fromClient("a.example.", 1000, 0, 0)
		ex.Server = &trace.Endpoint{PID: serverPID}
		upstreamQuery := toUpstream("a.example.", 1001, 200*time.Microsecond, time.Millisecond)
		var traces []*trace.Trace
		for now := epoch; now.Sub(epoch) < time.Minute; now = now.Add(50 * time.Millisecond) {
			open.now = now
			switch now.Sub(epoch) {
			case 50 * time.Millisecond:
				a.Report(record(ex, 20*time.Microsecond, 1900*time.Microsecond, attempt(1, 100*time.Microsecond, 1500*time.Microsecond, trace.OutcomeOK)), peer.Process{PID: from})
			case 150 * time.Millisecond:
				a.Add(upstreamQuery)
			case 8 * time.Second:
				a.Add(ex)
			}
			traces = append(traces, a.Advance(now)...)
		}
		whole := len(traces) == 1 && traces[0].Query != nil && len(traces[0].Upstreams) == 1 && traces[0].Upstreams[0].Exchange != nil
		if whole != (from == serverPID) {
			t.Errorf("sent by %d: %v", from, outlines(traces))
		}
	}
}
