package onkernel

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// The Service, the pod behind it, and the client.
const (
	service  = "10.96.0.10:53"
	endpoint = "10.244.2.2:53"
	clientIP = "10.244.1.2"
)

// A Service of IPVS, as kube-proxy makes it in ipvs mode: the address is the
// node's own, and IPVS sends what comes for it to the pod. It translates addresses
// by itself, without telling connection tracking: they are matched, and the record
// says so. Without masquerade: with it, emulated kernels failed, perhaps because
// their clock goes by ticks of 4 ms (KNOWN_ISSUES.md).
func TestIPVSService(t *testing.T) {
	ipvsadm, err := exec.LookPath("ipvsadm")
	if _, missing := os.Stat("/proc/net/ip_vs"); err != nil || missing != nil {
		t.Logf("nothing to test with: %v, %v", err, missing)
		return
	}
	tr := startTracer(t)
	client := pod(t, "client", clientIP, "10.244.1.1")
	server := pod(t, "server", "10.244.2.2", "10.244.2.1")
	addAddress(t, "lo", "10.96.0.10/32")
	sysctl(t, "net/ipv4/ip_forward", "1")
	run(t, "", ipvsadm, "-A", "-u", service, "-s", "rr")
	run(t, "", ipvsadm, "-a", "-u", service, "-r", endpoint, "-m")
	inside(t, server, func() error {
		serve(t, "udp", endpoint)
		return nil
	})
	for _, tc := range []struct{ name, conntrack string }{{"plain.test.", "0"}, {"conntrack.test.", "1"}} {
		sysctl(t, "net/ipv4/vs/conntrack", tc.conntrack)
		inside(t, client, func() error {
			conn, err := net.Dial("udp", service)
			if err != nil {
				return err
			}
			defer conn.Close()
			c := dns.Client{Timeout: patience}
			_, _, err = c.ExchangeWithConn(new(dns.Msg).SetQuestion(tc.name, dns.TypeA), &dns.Conn{Conn: conn})
			return err
		})
		tr.translated(tc.name)
	}
}

// translated wants one exchange of a lookup through the Service, seen at every
// device, and the pod as its server.
func (tr *tracer) translated(name string) {
	tr.t.Helper()
	ex := tr.exchange(name)
	const everyDevice = 8 // two pods, and the node's ends of their veths; query and response
	if all := tr.exchanges(name); len(all) != 1 || ex.Outcome != trace.OutcomeAnswered || len(ex.Path) != everyDevice {
		tr.t.Errorf("%s: %d exchanges, %s, path %+v", name, len(all), ex.Outcome, ex.Path)
	}
	if ex.ServerIP != netip.MustParseAddrPort(service).Addr() || ex.ClientIP != netip.MustParseAddr(clientIP) {
		tr.t.Errorf("%s: from %s to %s", name, ex.ClientIP, ex.ServerIP)
	}
	n := ex.NAT
	if n == nil || n.Source != trace.NATMatched || n.ClientIP.IsValid() || n.ServerIP != netip.MustParseAddrPort(endpoint).Addr() {
		tr.t.Errorf("%s: translated %+v, expected to %s, matched", name, n, endpoint)
	}
}

// run runs a program that must succeed.
func run(t *testing.T, stdin, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
}
