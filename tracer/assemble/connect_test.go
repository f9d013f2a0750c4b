package assemble

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// connecting is an attempt to open a TCP connection.
func connecting(pid int, port uint16, start time.Duration) *trace.Exchange {
	ex := ask{qtype: "A", pid: pid, port: port, start: start, tcp: true}.exchange()
	ex.QType, ex.QClass = "", ""
	ex.Flow = trace.NewFlow(trace.TransportTCP, netip.AddrPortFrom(clientIP, port), 0, 0, 0, nil)
	ex.TraceID = trace.NewTraceID(ex.Time, ex.Flow)
	ex.Path, ex.Milestones, ex.Outcome = trace.Path{}, trace.Milestones{}, trace.OutcomeDropped
	ex.Milestones.Query.Left = see(ex, trace.MessageQuery, trace.DirectionTX, clientNS, 0)
	ex.Drops = []trace.Drop{{Message: trace.MessageQuery}}
	return ex
}

// An attempt to connect goes on with the one answer that was truncated just before
// it, and with no other.
func TestConnect(t *testing.T) {
	large := ask{name: "large.example.", qtype: "TXT", pid: 7, port: 1000, took: ms, tc: true}
	with := func(change func(*ask)) ask {
		a := large
		change(&a)
		return a
	}
	for _, tc := range []struct {
		name    string
		lookups []ask
		pid     int
		start   time.Duration
		joined  bool
	}{
		{"at once", []ask{large}, 7, 2 * ms, true},
		{"process of the attempt unknown", []ask{large}, 0, 2 * ms, true},
		{"another process", []ask{large}, 8, 2 * ms, false},
		{"not truncated", []ask{with(func(a *ask) { a.tc = false })}, 7, 2 * ms, false},
		{"much later", []ask{large}, 7, 200 * ms, false},
		{"before the answer", []ask{large}, 7, ms / 2, false},
		{"one of two", []ask{large, with(func(a *ask) { a.name, a.port, a.start = "huge.example.", 1001, ms })}, 7, 3 * ms, false},
		{"of a call", []ask{
			{name: "large.example.", qtype: "A", pid: 7, port: 1000, took: ms},
			with(func(a *ask) { a.qtype, a.start = "AAAA", ms/10 }),
		}, 7, 2 * ms, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := New(Config{})
			for _, l := range tc.lookups {
				a.Add(l.exchange())
			}
			// They are passed on long before the attempt is given up.
			done := a.Advance(epoch.Add(5 * time.Second))
			a.Add(connecting(tc.pid, 2000, tc.start))
			done = append(done, a.Flush()...)
			attempt := done[slices.IndexFunc(done, func(tr *trace.Trace) bool { return tr.QName == "" })]
			if strings.Contains(strings.Join(attempt.Gaps, " "), "no record") {
				t.Fatalf("%s: gaps %v", attempt.QName, attempt.Gaps)
			}
			want := ""
			if tc.joined {
				want = done[0].TraceID.String()
				// Reported alone, it is reported again.
				last := done[len(done)-1]
				if got := last.Resolution; got != want || last.Replaces == (done[0].Resolution != "") {
					t.Errorf("the call of %s is %q, not %s; reported again: %t", last.QName, got, want, last.Replaces)
				}
			}
			if attempt.Resolution != want {
				t.Errorf("resolution %q, expected %q", attempt.Resolution, want)
			}
		})
	}
}
