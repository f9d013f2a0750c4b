package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// The response is later than the client's patience; and one that comes in time.
func TestDiagnoseRetransmission(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.Upstream(0).Set("late.test.", lab.Behaviour{Delay: 400 * time.Millisecond})
	r.Upstream(0).Set("intime.test.", lab.Behaviour{Delay: 100 * time.Millisecond})
	ask := lab.Query{Name: "late.test.", RetransmitAfter: 250 * time.Millisecond}
	r.answered(ask)
	ask.Name = "intime.test."
	r.answered(ask)
	r.finds("late.test.", "retransmission", "had not answered when the client asked again after 2", "query 2 was sent 2")
	r.spares("retransmission", "intime.test.", 1)
	r.keep("retransmission", "late.test")
	r.keep("retransmission-not", "intime.test")
}

// A client's first query, or the response to it, gets lost and the second is answered: what
// lost it is told, which is why the client asked again.
func TestDiagnoseLostThenAnswered(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for _, tc := range []struct {
		name, code string
		lose       func() (undo func(), err error)
		parts      []string
	}{
		{"again.test.", "dropped-by-netfilter", func() (func(), error) {
			return r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
		}, []string{"the client's first query", "NETFILTER_DROP"}},
		{"vanished.test.", "query-never-arrived", func() (func(), error) { return r.VanishAt(lab.CoreDNS) },
			[]string{"The client's first query did not reach the server", r.Host(lab.Node).Netns, "it was sent again 6"}},
		{"unheard.test.", "response-lost", func() (func(), error) { return r.VanishAt("client-a") },
			[]string{"The response to the client's first query did not reach the client", r.Host(lab.Node).Netns}},
		{"rollout.test.", "unexpected-source", r.UntranslatedReplies, []string{"was not undone", "wrong source address"}},
	} {
		undo, err := tc.lose()
		if err != nil {
			t.Fatal(err)
		}
		undone := make(chan struct{})
		time.AfterFunc(200*time.Millisecond, func() { undo(); close(undone) })
		r.answered(lab.Query{Name: tc.name, RetransmitAfter: 600 * time.Millisecond})
		<-undone // the lab goes only after it
		if tr := r.finds(tc.name, tc.code, tc.parts...); len(tr.Diagnosis) != 1 {
			t.Errorf("%s: findings %v", tc.name, findings(tr))
		}
	}
	r.keep("lost-then-answered", "again.test")
	r.keep("lost-transmission", "vanished.test", "unheard.test", "rollout.test")
}

// The first query meets a firewall, the second an eBPF program, the third is answered: both
// losses are told, in their order.
func TestDiagnoseTwoDrops(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	first, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() {
		defer close(over)
		first()
		second, err := r.DropByProgramAt(lab.CoreDNS)
		if err != nil {
			t.Error(err)
			return
		}
		time.Sleep(600 * time.Millisecond)
		second()
	})
	r.answered(lab.Query{Name: "twice.test.", RetransmitAfter: 600 * time.Millisecond})
	<-over
	tr := r.finds("twice.test.", "dropped-by-netfilter", "the client's first query")
	r.finds("twice.test.", "dropped-by-bpf", "the client's second query")
	if got := findings(tr); !slices.Equal(got, []string{"dropped-by-netfilter", "dropped-by-bpf"}) {
		t.Errorf("findings %v", got)
	}
	r.keep("two-drops", "twice.test")
}

// TC and the same question over TCP; and a question over TCP from the start.
func TestDiagnoseTruncatedRetry(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for i := range 2 {
		r.Upstream(i).Set("large.test.", lab.Behaviour{Truncated: true})
	}
	res := r.answered(lab.Query{Name: "large.test."})
	if !res.Answer.Truncated {
		t.Fatal("the answer is not truncated")
	}
	r.answered(lab.Query{Name: "large.test.", Network: "tcp"})
	r.answered(lab.Query{Name: "tcp.test.", Network: "tcp"})
	traces := r.traces("large.test.", 2)
	if slices.Contains(findings(traces[0]), "truncated-retry") {
		t.Error("told with the query over UDP")
	}
	wantAll(t, evidence(t, traces[1], "truncated-retry"), "TC set", "over TCP")
	r.spares("truncated-retry", "tcp.test.", 1)
	r.keep("truncated-retry", "large.test")
	r.keep("truncated-retry-not", "tcp.test")
}

// TC, and the client leaves it at that. One that asks over TCP a while later goes on.
func TestDiagnoseTruncatedNotRetried(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	for i := range 2 {
		r.Upstream(i).Set("cut.test.", lab.Behaviour{Truncated: true})
		r.Upstream(i).Set("patient.test.", lab.Behaviour{Truncated: true})
	}
	r.answered(lab.Query{Name: "a.cut.test."})
	r.answered(lab.Query{Name: "a.patient.test."})
	time.Sleep(500 * time.Millisecond)
	r.answered(lab.Query{Name: "a.patient.test.", Network: "tcp"})
	// What the tracer knows goes on for as long as it takes to be sure.
	time.Sleep(1100 * time.Millisecond)
	r.answered(lab.Query{Name: "whole.cut.test.", Type: dns.TypeTXT, Network: "tcp"})
	r.finds("a.cut.test.", "truncated-not-retried", "never asked over TCP", "it has nothing of it", "TC set", "within 1 s")
	r.trace("whole.cut.test.")
	traces := r.spares("truncated-not-retried", "a.patient.test.", 2)
	if !slices.Contains(findings(traces[1]), "truncated-retry") {
		t.Errorf("asked again 500 ms later: %v", findings(traces[1]))
	}
	r.keep("truncated-not-retried", "cut.test")
	r.keep("truncated-not-retried-not", "patient.test")
}

// A server that sends more than the client takes; and one that does not, because
// the client takes more.
func TestDiagnoseOversizedResponse(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.Upstream(0).Set("big.test.", lab.Behaviour{Size: 900})
	r.Upstream(0).Set("fits.test.", lab.Behaviour{Size: 900})
	ask := lab.Query{Name: "big.test.", Server: r.Upstream(0).V4()}
	r.answered(ask)
	m := new(dns.Msg).SetQuestion("fits.test.", dns.TypeA).SetEdns0(1232, false)
	ask.Name, ask.Message = "fits.test.", m
	r.answered(ask)
	r.finds("big.test.", "oversized-response", "512 bytes")
	r.spares("oversized-response", "fits.test.", 1)
	r.keep("oversized-response-not", "fits.test")
	r.keep("oversized-response", "big.test")
}

// A client that asks for names that do not exist, many a second; and one of whose
// names some do not exist.
func TestDiagnoseNXDomainStorm(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.Upstream(0).Set("gone.test.", lab.Behaviour{Rcode: dns.RcodeNameError})
	storm := func(client, zone string, every int) {
		for _, res := range r.Client(client).Bulk(context.Background(), lab.Bulk{Count: 140, Rate: 100, Query: func(i int) lab.Query {
			if i%every == 0 {
				return lab.Query{Name: fmt.Sprintf("n%d.%s.gone.test.", i, zone)}
			}
			return lab.Query{Name: fmt.Sprintf("n%d.%s.there.test.", i, zone)}
		}}) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
	}
	storm("client-b", "some", 3)
	storm("client-a", "all", 1)
	fired := map[string]int{}
	r.trace("n139.all.gone.test.")
	for _, tr := range r.allTraces() {
		if slices.Contains(findings(tr), "nxdomain-storm") {
			fired[tr.Exchange.ClientIP.String()]++
			wantAll(t, evidence(t, tr, "nxdomain-storm"), "do not exist", ".all.gone.test.")
		}
	}
	if len(fired) != 1 || fired[r.Host("client-a").V4.String()] != 1 {
		t.Errorf("fired %v, expected once for client-a", fired)
	}
	r.keep("nxdomain-storm", "all.gone.test")
	r.keep("nxdomain-storm-not", "some.gone.test", "some.there.test")
}

// A large response comes in fragments: all of them arrive, or a firewall takes
// those without ports.
func TestDiagnoseLostFragment(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s")
	ask := func(name string) lab.Query {
		r.Upstream(0).Set(name, lab.Behaviour{Size: 3000})
		return lab.Query{
			Message: new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(4096, false),
			Name:    name, Server: r.Upstream(0).V4(), Timeout: time.Second,
		}
	}
	r.answered(ask("whole.test."))
	undo, err := r.DropFragments("client-a")
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	if res := r.ask(ask("torn.test.")); res.Err == nil {
		t.Fatal("the response came through")
	}
	r.finds("torn.test.", "path-mtu", "a later one was dropped by a firewall rule", r.Host("client-a").Netns)
	r.spares("path-mtu", "whole.test.", 1)
	r.keep("lost-fragment", "torn.test")
	r.keep("lost-fragment-not", "whole.test")
}
