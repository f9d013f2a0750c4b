package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// evidence joins all evidence of a finding of the given code.
func evidence(t *testing.T, tr *trace.Trace, code string) string {
	t.Helper()
	for _, f := range tr.Diagnosis {
		if f.Code == code {
			return f.Summary + "\n" + strings.Join(f.Evidence, "\n")
		}
	}
	t.Fatalf("findings %v, expected %s; gaps %v", findings(tr), code, tr.Gaps)
	return ""
}

func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("missing %q in:\n%s", part, text)
		}
	}
}

// A dropped query names namespace, device or hook, and the kernel's reason, and
// says what is known of a record of it; at each place that a firewall may stand.
func TestDroppedByFirewall(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "healthy.test."})
	for _, tc := range []struct {
		name  string
		place lab.Place
		host  string
		match lab.Match
	}{
		{"client-output", lab.ClientOutput("client-a"), "client-a", lab.Match{Messages: lab.Queries}},
		{"forward", lab.NodeForward, lab.Node, lab.Match{Messages: lab.Queries}},
		{"server-input", lab.ServerInput, lab.CoreDNS, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			undo, err := r.DropAt(tc.place, tc.match)
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			name := tc.name + ".test."
			if res := r.ask(lab.Query{Name: name, Timeout: time.Second}); res.Err == nil {
				t.Fatal("the firewall let the query pass")
			}
			tr := r.trace(name)
			if tr.Outcome != trace.OutcomeDropped || tr.RCode != "" || tr.Query != nil {
				t.Errorf("outcome %s, rcode %q, query %v", tr.Outcome, tr.RCode, tr.Query != nil)
			}
			d := tr.Exchange.LastDrop()
			if d == nil || d.NetNSName != r.Host(tc.host).Netns || d.Reason != "NETFILTER_DROP" || d.Where == "" {
				t.Fatalf("drop %+v", d)
			}
			// On the way out of a pod there is no device yet, but the hook.
			if tc.name != "client-output" && d.IfName == "" {
				t.Errorf("no device: %+v", d)
			}
			wantAll(t, evidence(t, tr, "dropped-by-netfilter"), "NETFILTER_DROP", d.Where, d.NetNSName, "record")
		})
	}
	r.keep("dropped-query", "healthy.test", "client-output.test", "forward.test", "server-input.test")
}

// A dropped response says where it died, and that CoreDNS had answered: on its way
// out of CoreDNS, where it has no device yet, at the node, and in the client's own
// namespace, which it reached.
func TestDroppedResponse(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	for _, tc := range []struct {
		name  string
		place lab.Place
		host  string
	}{
		{"server-output", lab.ServerOutput, lab.CoreDNS},
		{"forward", lab.NodeForward, lab.Node},
		{"client-input", lab.ClientInput("client-a"), "client-a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			undo, err := r.DropAt(tc.place, lab.Match{Messages: lab.Responses, Leg: lab.ClientLeg})
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			name := tc.name + ".back.test."
			if res := r.ask(lab.Query{Name: name, Timeout: time.Second}); res.Err == nil {
				t.Fatal("the firewall let the response pass")
			}
			tr := r.trace(name)
			d := tr.Exchange.LastDrop()
			if tr.Outcome != trace.OutcomeDropped || tr.Query == nil || d == nil || d.Message != trace.MessageResponse {
				t.Fatalf("outcome %s, query %v, drop %+v", tr.Outcome, tr.Query != nil, d)
			}
			if d.NetNSName != r.Host(tc.host).Netns || d.Reason != "NETFILTER_DROP" || tc.place != lab.ServerOutput && d.IfName == "" {
				t.Errorf("drop %+v", d)
			}
			if tr.Exchange.Duration != nil {
				t.Errorf("it took %v, though the client got nothing", tr.Exchange.Duration)
			}
			wantAll(t, evidence(t, tr, "dropped-by-netfilter"), "the response", r.Host(tc.host).Netns, "CoreDNS recorded the query")
		})
	}
	r.keep("dropped-response", "back.test")
}

// A silent upstream shows both attempts, and which one timed out.
func TestSilentUpstream(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.SilentUpstream(0, "failover.test.")
	r.answered(lab.Query{Name: "failover.test."})
	tr := r.trace("failover.test.")
	if len(tr.Upstreams) != 2 {
		t.Fatalf("%d attempts, expected 2", len(tr.Upstreams))
	}
	for i, want := range []string{trace.OutcomeTimeout, trace.OutcomeOK} {
		u := tr.Upstreams[i]
		if u.Attempt.Outcome != want || u.Attempt.Address != r.Upstream(i).V4().String() || u.Join != trace.JoinExact {
			t.Errorf("attempt %+v, join %s; gaps %v", u.Attempt, u.Join, tr.Gaps)
		}
	}
	if first := tr.Upstreams[0].Exchange; first == nil || first.Outcome != trace.OutcomeUnanswered || first.RCode != "" {
		t.Errorf("first upstream exchange %+v", first)
	}
	wantAll(t, evidence(t, tr, "upstream-timeout"), r.Upstream(0).V4().String(), "nothing came back")
	r.keep("silent-upstream", "failover.test")
}

// The client waits as long as a resolver does; CoreDNS answers SERVFAIL after
// 6 s, when the tracer has reported the exchange as unanswered already.
func TestAllUpstreamsSilent(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	r.SilentUpstream(0, ".")
	r.SilentUpstream(1, ".")
	r.ask(lab.Query{Name: "dead.test.", Timeout: 5 * time.Second})
	tr := r.trace("dead.test.")
	if tr.Query == nil || tr.Query.RCode != "SERVFAIL" || len(tr.Upstreams) < 3 {
		t.Fatalf("query %+v, %d attempts; gaps %v", tr.Query, len(tr.Upstreams), tr.Gaps)
	}
	codes := findings(tr)
	if !slices.Contains(codes, "client-gave-up") || !slices.Contains(codes, "upstream-timeout") || slices.Contains(codes, "response-lost") {
		t.Errorf("findings %v", codes)
	}
	r.keep("all-upstreams-silent", "dead.test")
}

func TestNoListener(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "before.test."})
	undo, err := r.NoListener(r.server)
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "closed.test.", Timeout: time.Second})
	tr := r.trace("closed.test.")
	wantAll(t, evidence(t, tr, "dropped-no-socket"), "NO_SOCKET", r.Host(lab.CoreDNS).Netns, "no query record of this lookup came")
	undo()
	r.answered(lab.Query{Name: "after.test."})
	r.keep("no-listener", "before.test", "closed.test")
}

func TestClientGaveUp(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding)
	for i := range 2 {
		r.Upstream(i).Set("late.test.", lab.Behaviour{Delay: 300 * time.Millisecond})
	}
	undo := r.ClosedClientPort("client-a")
	r.ask(lab.Query{Name: "late.test."})
	undo()
	tr := r.trace("late.test.")
	if tr.Outcome != trace.OutcomeDropped {
		t.Errorf("outcome %s", tr.Outcome)
	}
	wantAll(t, evidence(t, tr, "client-gave-up"), "closed its socket", "CoreDNS recorded the query: outcome answered")
	if slices.Contains(findings(tr), "dropped-no-socket") {
		t.Error("the same fault twice")
	}
	r.keep("client-gave-up", "late.test")
}

// A packet that an eBPF program drops, as a network policy does where eBPF is the data
// path, names the kind of program and the place.
func TestDroppedByProgram(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	undo, err := r.DropByProgramAt(lab.CoreDNS)
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	r.ask(lab.Query{Name: "in.test.", Timeout: time.Second})
	tr := r.finds("in.test.", "dropped-by-bpf", "An eBPF program (tc egress) dropped the client's query", r.Host(lab.Node).Netns)
	if d := tr.Exchange.LastDrop(); tr.Outcome != trace.OutcomeDropped || d == nil || d.BPF == "" {
		t.Errorf("outcome %s, drop %+v", tr.Outcome, d)
	}
	r.keep("dropped-by-bpf", "in.test")
}

// Packets that vanish without a drop that the kernel announces: as in a network
// card, a hypervisor, or another's eBPF program.
func TestLostWithoutADrop(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "fine.test."})

	undo, err := r.VanishAt(lab.CoreDNS)
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "in.test.", Timeout: time.Second})
	tr := r.trace("in.test.")
	wantAll(t, evidence(t, tr, "query-never-arrived"), "the query was last seen", r.Host(lab.Node).Netns, "CoreDNS never recorded it")
	undo()

	if undo, err = r.VanishAt("client-a"); err != nil {
		t.Fatal(err)
	}
	defer undo()
	r.ask(lab.Query{Name: "fine.test.", Timeout: time.Second})
	tr = r.traces("fine.test.", 2)[1]
	wantAll(t, evidence(t, tr, "response-lost"), "the response was last seen", "CoreDNS recorded the query: outcome answered")
	if tr.Outcome != trace.OutcomeUnanswered || tr.RCode != "NOERROR" {
		t.Errorf("outcome %s, rcode %s", tr.Outcome, tr.RCode)
	}
	r.keep("lost-without-a-drop", "fine.test", "in.test")
}
