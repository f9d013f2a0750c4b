package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// largeQuery asks for what an upstream answers with so many bytes.
func (r *faultRig) largeQuery(name, network string, size int) lab.Query {
	r.Upstream(0).Set(name, lab.Behaviour{Size: size})
	return lab.Query{
		Message: new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(4096, false),
		Name:    name, Network: network, Server: r.Upstream(0).V4(), Timeout: 1500 * time.Millisecond,
	}
}

// fails makes a lookup that gets no answer.
func (r *faultRig) fails(q lab.Query) {
	r.t.Helper()
	if res := r.ask(q); res.Err == nil {
		r.t.Fatalf("%s: the response came through", q.Name)
	}
}

// A tunnel on the way passes packets of 1280 bytes, and a firewall the errors that say so to
// nobody: small answers come, large ones do not, over UDP and over TCP.
func TestDiagnosePathMTU(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s")
	if _, err := r.SmallerMTU(lab.Node, "cni0", 1280); err != nil {
		t.Fatal(err)
	}
	tell, err := r.DropTooBig(lab.Node)
	if err != nil {
		t.Fatal(err)
	}
	r.answered(r.largeQuery("small.test.", "tcp", 600))
	r.fails(r.largeQuery("udp.large.test.", "udp", 1200))
	r.fails(r.largeQuery("tcp.large.test.", "tcp", 4000))
	for _, name := range []string{"udp.large.test.", "tcp.large.test."} {
		tr := r.finds(name, "path-mtu", "was too big", "1280 pass", "the ICMP error, too", "PKT_TOO_BIG", r.Host(lab.Node).Netns)
		if got := findings(tr); len(got) != 1 {
			t.Errorf("%s: findings %v", name, got)
		}
	}
	r.spares("path-mtu", "small.test.", 1)
	r.keep("path-mtu", "large.test", "small.test")

	// Where the error arrives, the first response is lost, and the next is not.
	tell()
	r.fails(r.largeQuery("first.told.test.", "udp", 1200))
	r.answered(r.largeQuery("next.told.test.", "udp", 1200))
	r.answered(r.largeQuery("tcp.told.test.", "tcp", 4000))
	r.finds("first.told.test.", "path-mtu", "its sender was told", "ICMP error type 3 code 4")
	for _, name := range []string{"next.told.test.", "tcp.told.test."} {
		if tr := r.trace(name); len(tr.Diagnosis) != 0 || tr.Outcome != trace.OutcomeAnswered {
			t.Errorf("%s: %s, %v", name, tr.Outcome, tr.Diagnosis)
		}
	}
	r.keep("path-mtu-told", "told.test")
}

// The response is larger than the device takes that it is sent to, of which the kernel tells
// nobody, and gives no reason.
func TestDiagnosePathMTUOfADevice(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s")
	if _, err := r.SmallerMTU("client-a", "eth0", 1280); err != nil {
		t.Fatal(err)
	}
	r.fails(r.largeQuery("direct.large.test.", "udp", 1400))
	q := r.largeQuery("cached.large.test.", "udp", 1400)
	q.Server = lab.ServiceV4
	r.fails(q)
	for _, name := range []string{"direct.large.test.", "cached.large.test."} {
		tr := r.finds(name, "path-mtu", "was too big", "no ICMP error that tells its sender was seen", r.Host(lab.Node).Netns)
		if got := findings(tr); len(got) != 1 {
			t.Errorf("%s: findings %v", name, got)
		}
	}
	r.keep("path-mtu-device", "large.test")
}

// Large segments vanish where nobody sees a drop: they are sent again and again, while the
// small ones of the connection pass. Where all vanish, it is no matter of size.
func TestDiagnosePathMTUWithoutADrop(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "3s")
	undo, err := r.VanishAbove("client-a", 1294)
	if err != nil {
		t.Fatal(err)
	}
	q := r.largeQuery("a.stuck.test.", "tcp", 4000)
	q.Timeout = 3 * time.Second
	r.answered(r.largeQuery("small.stuck.test.", "tcp", 600))
	r.fails(q)
	tr := r.finds("a.stuck.test.", "path-mtu", "does not pass over TCP, small packets do", "no ICMP error")
	if got := findings(tr); len(got) != 1 || tr.Exchange.ResentSegments < 3 {
		t.Errorf("findings %v, %d segments sent again", got, tr.Exchange.ResentSegments)
	}
	r.spares("path-mtu", "small.stuck.test.", 1)
	undo()
	if undo, err = r.VanishAbove("client-a", 78); err != nil { // acknowledgements pass, and what opens a connection
		t.Fatal(err)
	}
	q = r.largeQuery("lost.small.test.", "tcp", 200)
	q.Timeout = 3 * time.Second
	r.fails(q)
	defer undo()
	if got := findings(r.trace("lost.small.test.")); slices.Contains(got, "path-mtu") || len(got) == 0 {
		t.Errorf("a response that every path passes: %v", got)
	}
	r.keep("path-mtu-stuck", "stuck.test")
	r.keep("path-mtu-not", "lost.small.test")
}

// Only the namespace of the client is observed, and what is large vanishes before it, or all but
// its end: nothing of that shows there that it was large, and no cause is said.
func TestDiagnosePathMTUOfTheReceiverAlone(t *testing.T) {
	r := &faultRig{rig: &rig{lab.New(t, lab.Config{}), t}}
	if _, err := r.StartTracer(append(onlyIn(r.Lab, "client-a"), "--timeout", "2s")...); err != nil {
		t.Fatal(err)
	}
	undo, err := r.VanishAbove("client-a", 1294)
	if err != nil {
		t.Fatal(err)
	}
	large := []lab.Query{
		r.largeQuery("end.tcp.test.", "tcp", 4000), r.largeQuery("none.tcp.test.", "tcp", 1410),
		r.largeQuery("end.udp.test.", "udp", 3000), r.largeQuery("none.udp.test.", "udp", 1400),
	}
	for _, q := range large {
		r.fails(q)
	}
	undo()
	for _, q := range large {
		tr := r.finds(q.Name, "no-response-seen", "No response was seen, and nothing shows why")
		if got := findings(tr); len(got) != 1 || tr.Exchange.Milestones.Response.Left != trace.NotObservable {
			t.Errorf("%s: findings %v, %+v", q.Name, got, tr.Exchange.Milestones)
		}
	}
}
