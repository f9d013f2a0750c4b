package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// dig runs dig in a pod. That it got no answer is no error here.
func (r *faultRig) dig(pod string, args ...string) {
	r.t.Helper()
	args = append([]string{"@" + lab.ServiceV4.Addr().String(), "+tries=1"}, args...)
	_, err := r.Run(r.t.Context(), lab.Spec{Name: "dig", Host: pod, Path: "dig", Args: args})
	if err != nil && !strings.Contains(err.Error(), "exit code 9") { // no reply from server
		r.t.Fatal(err)
	}
}

// attempts waits for n traces of attempts to connect.
func (r *faultRig) attempts(n int) []*trace.Trace {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var found []*trace.Trace
		for _, tr := range r.allTraces() {
			if tr.QName == "" && r.ours(tr) {
				found = append(found, tr)
			}
		}
		if len(found) >= n {
			return found
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d attempts to connect, expected %d\n%s", len(found), n, r.Outputs())
		}
	}
}

// ours is false of what other labs on this machine do.
func (r *faultRig) ours(tr *trace.Trace) bool {
	prefix := strings.TrimSuffix(r.Host(lab.Node).Netns, lab.Node)
	if tr.Exchange == nil {
		return false
	}
	for _, s := range tr.Exchange.Path.All() {
		if strings.HasPrefix(s.NetNSName, prefix) {
			return true
		}
	}
	return false
}

// A policy lets UDP pass and drops TCP: small answers come, and of those that do
// not fit nothing is ever asked over TCP. The attempt to connect is a trace
// without a name, of the call whose answer was truncated, and `explain` of the
// name shows it.
func TestDiagnoseTCPDropped(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	for i := range 2 {
		r.Upstream(i).Set("large.test.", lab.Behaviour{Truncated: true})
	}
	r.dig("client-a", "+tcp", "allowed.test")
	r.spares("dropped-by-netfilter", "allowed.test.", 1)
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Network: "tcp", Leg: lab.ClientLeg, Messages: lab.Queries})
	if err != nil {
		t.Fatal(err)
	}
	r.dig("client-a", "+time=2", "large.test")
	time.Sleep(200 * time.Millisecond) // nothing of what follows belongs to it
	r.dig("client-b", "+time=2", "+tcp", "plain.test")
	undo()
	attempts := r.attempts(2)
	if len(attempts) != 2 {
		t.Fatalf("%d attempts to connect, expected 2", len(attempts))
	}
	slices.SortFunc(attempts, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
	for _, tr := range attempts {
		text := evidence(t, tr, "dropped-by-netfilter")
		wantAll(t, text, "the client's attempt to connect over TCP", "NETFILTER_DROP", r.Host(lab.Node).Netns)
		if tr.Outcome != trace.OutcomeDropped || tr.Exchange.Protocol != "tcp" || tr.Client == nil || tr.Client.PID == 0 || len(tr.Diagnosis) != 1 {
			t.Errorf("outcome %s, protocol %s, client %+v, findings %v", tr.Outcome, tr.Exchange.Protocol, tr.Client, findings(tr))
		}
		if strings.Contains(strings.Join(tr.Gaps, " "), "no record") {
			t.Errorf("a record is missed of what asked nothing: %v", tr.Gaps)
		}
	}
	large := r.trace("large.test.")
	if got := attempts[0].Resolution; got != large.TraceID.String() || attempts[1].Resolution != "" {
		t.Errorf("resolutions %q and %q, expected %s and none", got, attempts[1].Resolution, large.TraceID)
	}
	wantAll(t, evidence(t, attempts[0], "dropped-by-netfilter"), "the response over UDP for large.test. A had TC set")
	wantAll(t, evidence(t, attempts[1], "dropped-by-netfilter"), "is not known")
	for _, args := range [][]string{{"--api", r.APISocket()}, {"--from", r.RecordFile()}} {
		out, err := r.Dnstrace(t.Context(), append([]string{"explain", "large.test"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, out, "ONE CALL, 2 LOOKUPS", "(TCP connection)", "TCP SYN to the server", "DIAGNOSIS: dropped-by-netfilter")
	}
	r.keep("tcp-dropped", "large.test", "")
	r.keep("tcp-dropped-not", "allowed.test")
}

// A server that listens and does not accept: over UDP it answers, over TCP its queue is
// full.
func TestDiagnoseListenQueueFull(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	if err := r.Upstream(0).SetStreams(lab.Streams{Deaf: true}); err != nil {
		t.Fatal(err)
	}
	// Two connections fit, and stay in the queue when their clients have gone.
	for range 3 {
		r.ask(lab.Query{Name: "deaf.test.", Network: "tcp", Server: r.Upstream(0).V4(), Timeout: 2 * time.Second})
	}
	attempts := r.attempts(1)
	tr := attempts[len(attempts)-1]
	wantAll(t, evidence(t, tr, "listen-queue-full"), "does not accept", r.Upstream(0).V4().Addr().String(), r.Host(lab.Upstream).Netns)
	if !tr.Exchange.ListenFull || tr.Outcome != trace.OutcomeUnanswered || len(tr.Diagnosis) != 1 {
		t.Errorf("listen_full %t, outcome %s, findings %v", tr.Exchange.ListenFull, tr.Outcome, findings(tr))
	}
	r.keep("listen-queue-full", "")
}

// Where TCP vanishes, the repeated SYN tells it from a server that refuses; where
// nothing listens, the kernel there does.
func TestDiagnoseTCPUnanswered(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	vanish, err := r.VanishAt(lab.CoreDNS)
	if err != nil {
		t.Fatal(err)
	}
	r.dig("client-a", "+tcp", "+time=3", "vanished.test")
	vanish()
	tr := r.attempts(1)[0]
	wantAll(t, evidence(t, tr, "no-response-seen"), "attempt to connect over TCP to "+lab.ServiceV4.Addr().String(), "it was sent")
	if tr.Exchange.Transmissions < 2 || tr.Outcome != trace.OutcomeUnanswered {
		t.Errorf("outcome %s, sent %d times", tr.Outcome, tr.Exchange.Transmissions)
	}
	r.keep("tcp-unanswered", "")

	undo, err := r.NoListener(r.server)
	if err != nil {
		t.Fatal(err)
	}
	r.dig("client-a", "+tcp", "closed.test")
	undo()
	tr = r.attempts(2)[1]
	wantAll(t, evidence(t, tr, "dropped-no-socket"), "refused the client's TCP connection", "NO_SOCKET", r.Host(lab.CoreDNS).Netns)
}
