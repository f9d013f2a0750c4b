package integration

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Types and codes of errors (RFC 792, RFC 4443).
const (
	icmpUnreachable, icmpPort     = 3, 3
	icmpv6Unreachable, icmpv6Port = 1, 4
)

// A closed port answers with an ICMP error, which is tied to the query that it is
// about.
func TestICMPErrorIsTiedToItsQuery(t *testing.T) {
	r := tracerOnly(t, "--timeout", "2s")
	pod := r.Host(lab.CoreDNS)
	for _, tc := range []struct {
		name       string
		service    netip.AddrPort
		from       netip.Addr
		kind, code uint8
	}{
		{"refused-v4.test.", lab.ServiceV4, pod.V4, icmpUnreachable, icmpPort},
		{"refused-v6.test.", lab.ServiceV6, pod.V6, icmpv6Unreachable, icmpv6Port},
	} {
		r.ask(lab.Query{Name: tc.name, Server: tc.service, Timeout: time.Second})
		ex := r.trace(tc.name).Exchange
		i := ex.ICMP
		if i == nil {
			t.Errorf("%s: no error; drop %+v", tc.name, ex.LastDrop())
			continue
		}
		if i.Type != tc.kind || i.Code != tc.code || i.From != tc.from || i.Message != trace.MessageQuery || i.Offset <= 0 {
			t.Errorf("%s: %+v, expected it from %s", tc.name, i, tc.from)
		}
	}
}

// A response that IP cuts into fragments: whole, and with a firewall at the client
// that drops all but the first.
func TestFragmentsAreCounted(t *testing.T) {
	const size = 4000
	r := tracerOnly(t, "--timeout", "2s")
	server, err := r.Serve(lab.CoreDNS, netip.AddrPortFrom(r.Host(lab.CoreDNS).V4, 53))
	if err != nil {
		t.Fatal(err)
	}
	server.Set(".", lab.Behaviour{Size: size})
	r.answered(lab.Query{Message: withEDNS("whole.test.")})
	f := r.trace("whole.test.").Exchange.Fragments
	if f == nil || f.Message != trace.MessageResponse || !f.Complete || f.Seen < 3 || f.SeenBytes < size {
		t.Errorf("all arrived: %+v", f)
	}

	drop := lab.Spec{Name: "iptables", Host: "client-a", Path: "iptables", Args: []string{"-t", "raw", "-I", "PREROUTING", "-f", "-j", "DROP"}}
	if _, err := r.Run(context.Background(), drop); err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Message: withEDNS("cut.test."), Timeout: time.Second})
	ex := r.trace("cut.test.").Exchange
	if ex.Fragments == nil || ex.LastDrop() == nil || ex.LastDrop().Message != trace.MessageResponse {
		t.Errorf("all but the first were dropped: %+v, drop %+v", ex.Fragments, ex.LastDrop())
	}
}

// Masquerade between client and server: one exchange, named as the server sees it.
func TestMasqueradeIsOneExchange(t *testing.T) {
	r := tracerOnly(t)
	node := r.Host(lab.Node)
	masquerade := lab.Match{Messages: lab.Queries, Network: "udp", Family: 4, Leg: lab.UpstreamLeg}
	if _, err := r.RuleAt(lab.Place{Host: lab.Node, Table: "nat", Chain: "POSTROUTING"}, masquerade, "-j", "MASQUERADE"); err != nil {
		t.Fatal(err)
	}
	res := r.answered(lab.Query{Name: "outside.test.", Server: r.Upstream(0).V4()})
	got := r.Upstream(0).Received("outside.test.")
	if len(got) != 1 || got[0].Client.Addr() == res.Local.Addr() {
		t.Fatalf("the upstream got %+v: the rule does nothing", got)
	}
	traces := r.traces("outside.test.", 1)
	ex := traces[0].Exchange
	if len(traces) != 1 || ex.ClientIP != res.Local.Addr() || ex.ClientPort != res.Local.Port() || ex.Outcome != trace.OutcomeAnswered {
		t.Fatalf("%d traces, client %s:%d, %s", len(traces), ex.ClientIP, ex.ClientPort, ex.Outcome)
	}
	n := ex.NAT
	if n == nil || n.Source != trace.NATConntrack || n.ClientPort == nil || netip.AddrPortFrom(n.ClientIP, *n.ClientPort) != got[0].Client || n.ServerPort != nil {
		t.Errorf("translated %+v, the upstream saw %s; the node is %s", n, got[0].Client, node.V4)
	}
}
