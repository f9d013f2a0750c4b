package integration

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A Service made by kube-proxy in nftables mode: traces are whole, and what was
// translated, of the server and of a masqueraded client, is what connection
// tracking says.
func TestJoinNftablesService(t *testing.T) {
	for mode, masquerade := range map[string]bool{"destination": false, "both ends": true} {
		t.Run(mode, func(t *testing.T) {
			r := &rig{lab.New(t, lab.Config{Nftables: true, MasqueradeAll: masquerade}), t}
			if _, err := r.StartTracer(); err != nil {
				t.Fatal(err)
			}
			if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
				t.Fatal(err)
			}
			for _, q := range []lab.Query{
				{Name: "udp.test."}, {Name: "tcp.test.", Network: "tcp"}, {Name: "udp6.test.", Server: lab.ServiceV6},
			} {
				res := r.answered(q)
				tr := r.trace(q.Name)
				if tr.Exchange == nil || tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact {
					t.Fatalf("%s: exchange %t, query %t, upstreams %+v; gaps %v", q.Name, tr.Exchange != nil, tr.Query != nil, tr.Upstreams, tr.Gaps)
				}
				if len(tr.Diagnosis) != 0 || len(tr.Gaps) != 0 {
					t.Errorf("%s: findings %v, gaps %v", q.Name, findings(tr), tr.Gaps)
				}
				checkService(t, r, tr, res.Local, masquerade)
			}
		})
	}
}

// checkService wants the addresses of both ends before and after the translation.
func checkService(t *testing.T, r *rig, tr *trace.Trace, client netip.AddrPort, masqueraded bool) {
	t.Helper()
	ex, pod := tr.Exchange, r.Host(lab.CoreDNS)
	service, endpoint := lab.ServiceV4, netip.AddrPortFrom(pod.V4, 53)
	if client.Addr().Is6() {
		service, endpoint = lab.ServiceV6, netip.AddrPortFrom(pod.V6, 53)
	}
	asked := netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)
	if got := netip.AddrPortFrom(ex.ClientIP, ex.ClientPort); got != client || asked != service {
		t.Errorf("%s: from %s to %s, expected %s to %s", ex.QName, got, asked, client, service)
	}
	n := ex.NAT
	if n == nil || n.Source != trace.NATConntrack || n.ServerIP != endpoint.Addr() || n.ServerPort == nil || *n.ServerPort != 53 {
		t.Errorf("%s: translated %+v, expected to %s", ex.QName, n, endpoint)
		return
	}
	if !masqueraded {
		if n.ClientIP.IsValid() || tr.Query.ClientIP != client.Addr() {
			t.Errorf("%s: client translated to %s, CoreDNS saw %s", ex.QName, n.ClientIP, tr.Query.ClientIP)
		}
		return
	}
	if n.ClientIP == client.Addr() || n.ClientIP != tr.Query.ClientIP || n.ClientPort == nil || *n.ClientPort != tr.Query.ClientPort {
		t.Errorf("%s: client translated to %s, CoreDNS saw %s", ex.QName, n.ClientIP, tr.Query.ClientIP)
	}
}

// A Service of nftables whose endpoint is gone: the drop that the kernel announces
// is that of the address it was translated to.
func TestDiagnoseNftablesStaleEndpoint(t *testing.T) {
	l := lab.New(t, lab.Config{Nftables: true})
	r := &faultRig{rig: &rig{l, t}}
	if _, err := l.StartTracer("--timeout", "4s"); err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort("10.244.0.250:53") // of the lab's pods, none
	if err := l.SetEndpoints(nobody); err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "stale.test.", Type: dns.TypeA, Timeout: patience / 10})
	r.finds("stale.test.", "stale-endpoint", nobody.Addr().String())
}
