package onkernel

import (
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
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
// by itself, so connection tracking tells of them only where it translates too:
// with --masquerade-all. Else they are matched, and the record says so.
func TestIPVSService(t *testing.T) {
	if lacks(t, feature.IPVS) {
		return
	}
	tr := startTracer(t)
	client := pod(t, "client", clientIP, "10.244.1.1")
	server := pod(t, "server", "10.244.2.2", "10.244.2.1")
	addAddress(t, "lo", "10.96.0.10/32")
	sysctl(t, "net/ipv4/ip_forward", "1")
	run(t, "", "ipvsadm", "-A", "-u", service, "-s", "rr")
	run(t, "", "ipvsadm", "-a", "-u", service, "-r", endpoint, "-m")
	inside(t, server, func() error {
		serve(t, "udp", endpoint)
		return nil
	})
	// IPVS itself is not in connection tracking: that the packet buffer stays the same tells, or
	// where the machine is too slow for that addresses, ports, ID and question do.
	byItself := []string{trace.NATBuffer, trace.NATMatched}
	for _, tc := range []struct {
		name, conntrack, masquerade string
		sources                     []string
	}{
		{"plain.test.", "0", "", byItself},
		{"conntrack.test.", "1", "", byItself},
		{"masquerade.test.", "1", "table ip dnstrace_test { chain p { type nat hook postrouting priority srcnat; ip daddr 10.244.2.2 masquerade; }; }", []string{trace.NATConntrack}},
	} {
		sysctl(t, "net/ipv4/vs/conntrack", tc.conntrack)
		if tc.masquerade != "" {
			run(t, tc.masquerade, "nft", "-f", "-")
		}
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
		tr.translated(tc.name, tc.sources, tc.masquerade != "")
	}
}

// translated wants one exchange of a lookup through the Service, seen at every
// device, and what was translated.
func (tr *tracer) translated(name string, sources []string, masqueraded bool) {
	tr.t.Helper()
	ex := tr.exchange(name)
	const everyDevice = 8 // two pods, and the node's ends of their veths; query and response
	if all := tr.exchanges(name); len(all) != 1 || ex.Outcome != trace.OutcomeAnswered || atDevices(ex) != everyDevice {
		tr.t.Errorf("%s: %d exchanges, %s, path %+v", name, len(all), ex.Outcome, ex.Path)
	}
	if ex.ServerIP != netip.MustParseAddrPort(service).Addr() || ex.ClientIP != netip.MustParseAddr(clientIP) {
		tr.t.Errorf("%s: from %s to %s", name, ex.ClientIP, ex.ServerIP)
	}
	n := ex.NAT
	if n == nil || !slices.Contains(sources, n.Source) || n.ServerIP != netip.MustParseAddrPort(endpoint).Addr() {
		tr.t.Errorf("%s: translated %+v, expected to %s, %s", name, n, endpoint, sources)
		return
	}
	if n.ClientIP.IsValid() != masqueraded {
		tr.t.Errorf("%s: client translated to %s", name, n.ClientIP)
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
