package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A miss shows the whole way in one record, over every transport and family.
func TestMissIsCompleteInOneTrace(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for _, tc := range []struct {
		network string
		service netip.AddrPort
	}{
		{"udp", lab.ServiceV4}, {"tcp", lab.ServiceV4}, {"udp", lab.ServiceV6}, {"tcp", lab.ServiceV6},
	} {
		name := fmt.Sprintf("miss-%s-%t.test.", tc.network, tc.service.Addr().Is4())
		t.Run(name, func(t *testing.T) {
			res := r.answered(lab.Query{Name: name, Network: tc.network, Server: tc.service})
			tr := r.trace(name)
			checkComplete(t, r.rig, tr, res)
			if len(tr.Upstreams) != 1 {
				t.Fatalf("%d upstream attempts, expected 1", len(tr.Upstreams))
			}
			checkUpstream(t, r.rig, tr)
			if tr.Query.Cache != trace.CacheMiss || tr.Query.AnsweredBy != "forward" {
				t.Errorf("cache %s, answered by %s", tr.Query.Cache, tr.Query.AnsweredBy)
			}
			if len(tr.Diagnosis) != 0 || len(tr.Gaps) != 0 {
				t.Errorf("a healthy lookup has findings %v, gaps %v", findings(tr), tr.Gaps)
			}
		})
	}
	r.keep("healthy", "miss-udp-true.test", "miss-tcp-true.test", "miss-udp-false.test", "miss-tcp-false.test")
}

func TestHitHasNoUpstream(t *testing.T) {
	r := newRig(t)
	r.answered(lab.Query{Name: "hit.test."})
	res := r.answered(lab.Query{Name: "hit.test."})
	tr := r.traces("hit.test.", 2)[1]
	checkComplete(t, r, tr, res)
	if tr.Query.Cache != trace.CacheHit || tr.Query.AnsweredBy != "cache" || len(tr.Upstreams) != 0 {
		t.Errorf("cache %s, answered by %s, %d upstreams", tr.Query.Cache, tr.Query.AnsweredBy, len(tr.Upstreams))
	}
}

func TestTwoInFlightFromOnePort(t *testing.T) {
	r := newRig(t)
	for _, network := range []string{"udp", "tcp"} {
		names := []string{"first-" + network + ".test.", "second-" + network + ".test."}
		results := r.Client("client-a").ExchangeTogether(context.Background(),
			lab.Query{Name: names[0], Network: network, ID: 7}, lab.Query{Name: names[1], Network: network, ID: 8})
		for i, name := range names {
			if results[i].Err != nil {
				t.Fatalf("%s: %v", name, results[i].Err)
			}
			tr := r.trace(name)
			checkComplete(t, r, tr, results[i])
			checkUpstream(t, r, tr)
		}
	}
}

// checkComplete holds a trace against what the client knows and against itself.
func checkComplete(t *testing.T, r *rig, tr *trace.Trace, res lab.Result) {
	t.Helper()
	ex := tr.Exchange
	if ex == nil || tr.Query == nil {
		t.Fatalf("%s: exchange %v, query %v", tr.QName, ex != nil, tr.Query != nil)
	}
	if ex.ClientIP != res.Local.Addr() || ex.ClientPort != res.Local.Port() || ex.ID != res.ID || ex.ServerIP != res.Server.Addr() {
		t.Errorf("got %s:%d id %d to %s, the client sent %s id %d to %s", ex.ClientIP, ex.ClientPort, ex.ID, ex.ServerIP, res.Local, res.ID, res.Server)
	}
	if ex.Flow != tr.Query.Flow || !trace.SameLookup(ex.TraceID, tr.Query.TraceID) {
		t.Errorf("two names for one lookup: %s and %s", ex.TraceID, tr.Query.TraceID)
	}
	pod := r.Host(lab.CoreDNS).V4
	if ex.ServerIP.Is6() {
		pod = r.Host(lab.CoreDNS).V6
	}
	if ex.NAT == nil || ex.NAT.ServerIP != pod || ex.NAT.Source != trace.NATConntrack {
		t.Errorf("translation %+v, expected to %s by conntrack", ex.NAT, pod)
	}
	if tr.RCode != dns.RcodeToString[res.Rcode()] || tr.Query.RCode != tr.RCode {
		t.Errorf("rcode %s, CoreDNS says %s, the client %d", tr.RCode, tr.Query.RCode, res.Rcode())
	}
	if ex.Node != lab.NodeName || ex.Client == nil || ex.Client.Node != lab.NodeName || ex.Server == nil || ex.Server.Node != lab.NodeName {
		t.Errorf("node %q, client %+v, server %+v: expected %s", ex.Node, ex.Client, ex.Server, lab.NodeName)
	}
	checkPath(t, r, ex, pod)
	checkSum(t, tr)
	if d := tr.Duration.Duration(); d > res.Latency {
		t.Errorf("on the wire %s, longer than the client's %s", d, res.Latency)
	}
}

// checkPath wants the packets before and after translation, their arrival in
// CoreDNS's namespace, and the way back.
func checkPath(t *testing.T, r *rig, ex *trace.Exchange, pod netip.Addr) {
	t.Helper()
	last := trace.Seconds(-1)
	var saw []string
	for _, s := range ex.Path.All() {
		if s.Offset < last {
			t.Errorf("offsets do not rise: %v", ex.Path)
		}
		last = s.Offset
		host := s.NetNSName[strings.LastIndexByte(s.NetNSName, '-')+1:]
		if s.NetNSName == r.Host("client-a").Netns {
			host = "client"
		}
		addr := s.Dst
		if s.Message == trace.MessageResponse {
			addr = s.Src
		}
		to := "service"
		if addr.Addr() == pod {
			to = "pod"
		}
		saw = append(saw, strings.Join([]string{s.Message, host, s.Direction, to}, " "))
	}
	for _, want := range []string{
		"query client tx service", "query node rx service", "query node tx pod", "query coredns rx pod",
		"response coredns tx pod", "response node rx pod", "response node tx service", "response client rx service",
	} {
		if !slices.Contains(saw, want) {
			t.Errorf("not seen: %s\n%s", want, strings.Join(saw, "\n"))
		}
	}
}

// checkSum wants the parts of the lookup, way in, CoreDNS, way back, to add up
// to the client's latency within 1 %: none may overlap another.
func checkSum(t *testing.T, tr *trace.Trace) {
	t.Helper()
	var arrived, left time.Duration
	for _, s := range tr.Exchange.Path.All() {
		if s.Message == trace.MessageQuery {
			arrived = s.Offset.Duration()
		} else if left == 0 {
			left = s.Offset.Duration()
		}
	}
	started := tr.Query.Time.Sub(tr.Exchange.Time)
	// What a plugin still does when the response has left is no part of it.
	ended := min(started+tr.Query.DNS.Duration.Duration(), left)
	total := tr.Duration.Duration()
	// The clocks of a process and of its kernel are some microseconds apart, however short a lookup is.
	apart := max(total/100, 50*time.Microsecond)
	var sum time.Duration
	marks := []time.Duration{0, arrived, started, ended, left, total}
	for i := 1; i < len(marks); i++ {
		sum += (marks[i] - marks[i-1]).Abs()
	}
	if over := sum - total; over > apart {
		t.Errorf("parts add up to %s, the client waited %s: %v", sum, total, marks)
	}
	for _, u := range tr.Upstreams {
		begin := tr.Query.Time.Add(u.Attempt.Start.Duration())
		over := begin.Add(u.Attempt.Duration.Duration())
		if ex := u.Exchange; ex.Time.Before(begin.Add(-apart)) || ex.Time.Add(ex.Duration.Duration()).After(over.Add(apart)) {
			t.Errorf("attempt %s to %s, its exchange began %s and took %s", begin, over, ex.Time, ex.Duration.Duration())
		}
	}
}

// checkUpstream wants the upstream exchange beside its attempt, under the ID
// that the upstream really got.
func checkUpstream(t *testing.T, r *rig, tr *trace.Trace) {
	t.Helper()
	u := tr.Upstreams[0]
	if u.Attempt == nil || u.Attempt.Outcome != trace.OutcomeOK || u.Join != trace.JoinExact || u.Exchange == nil {
		t.Fatalf("attempt %+v, join %s, exchange %v; gaps %v", u.Attempt, u.Join, u.Exchange != nil, tr.Gaps)
	}
	var got []lab.Received
	for i := range 2 {
		got = append(got, r.Upstream(i).Received(tr.QName)...)
	}
	if len(got) != 1 || got[0].ID != u.Exchange.ID || got[0].Client.Port() != u.Exchange.ClientPort {
		t.Errorf("the upstream got %+v, the trace has ID %d from port %d", got, u.Exchange.ID, u.Exchange.ClientPort)
	}
	if u.Exchange.Server == nil || u.Exchange.Client == nil || u.Exchange.Client.Process != "coredns" {
		t.Errorf("upstream exchange from %+v to %+v", u.Exchange.Client, u.Exchange.Server)
	}
}
