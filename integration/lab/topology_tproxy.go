package lab

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What tells packets for the transparent proxy to the node's routing.
const (
	proxyPort     = 10053
	proxyMark     = 0x200
	proxyTable    = 2004
	proxyPriority = 9
)

// transparentProxy is a node on which a proxy takes clients' DNS messages and passes
// them on with the same addresses and ports, both ways, as Cilium's does where a policy
// names domains. Clients ask the CoreDNS pod, as behind a translation at the socket.
func transparentProxy() Topology {
	return Topology{
		Name: "transparent-proxy", node: noBridge, attach: attachRouted, service: noService,
		Services: podEndpoint(53),
		Proxied:  true,
		chain:    NodeManglePrerouting,
		finish:   (*Lab).buildProxy,
	}
}

// buildProxy leads clients' queries, and the responses to the proxy, to the proxy's
// sockets, and starts it.
func (l *Lab) buildProxy() error {
	node := l.Host(Node)
	taken := new(atomic.Uint64)
	l.counts("proxied", func() (uint64, error) { return taken.Load(), nil })
	for _, f := range families() {
		for _, rule := range l.proxyRules(f) {
			if err := node.iptables(f.iptables, rule...); err != nil {
				return err
			}
		}
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = f.family, proxyMark, proxyTable, proxyPriority
		if err := node.ns.links.RuleAdd(rule); err != nil {
			return fmt.Errorf("rule %v in %s: %w", rule, node.Name, err)
		}
		lo, err := node.ns.links.LinkByName("lo")
		if err != nil {
			return err
		}
		local := &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: ipNet(f.all), Table: proxyTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		}
		if err := node.ns.links.RouteAdd(local); err != nil {
			return fmt.Errorf("local route to %s in %s: %w", f.all, node.Name, err)
		}
		if err := l.startProxy(node, f, taken); err != nil {
			return fmt.Errorf("transparent proxy in %s: %w", node.Name, err)
		}
	}
	return nil
}

// proxyRules are the rules of a family. What passes the proxy is not tracked: it has
// the same addresses and ports before and after.
func (l *Lab) proxyRules(f family) [][]string {
	mark, mask := fmt.Sprintf("%#x", proxyMark), fmt.Sprintf("%#x/0xffffffff", proxyMark)
	var rules [][]string
	for _, network := range []string{"udp", "tcp"} {
		for _, pod := range l.pods() {
			if pod.Name == CoreDNS {
				continue
			}
			rules = append(rules,
				[]string{"-t", "raw", "-A", "PREROUTING", "-i", vethName(pod.Name), "-p", network, "--dport", "53", "-j", "NOTRACK"},
				[]string{
					"-t", "mangle", "-A", "PREROUTING", "-i", vethName(pod.Name), "-p", network, "--dport", "53",
					"-j", "TPROXY", "--on-port", strconv.Itoa(proxyPort), "--on-ip", f.loopback.String(), "--tproxy-mark", mask,
				})
		}
		server := vethName(CoreDNS)
		rules = append(rules,
			[]string{"-t", "raw", "-A", "PREROUTING", "-i", server, "-p", network, "--sport", "53", "-j", "NOTRACK"},
			[]string{"-t", "raw", "-A", "OUTPUT", "-p", network, "--dport", "53", "-j", "NOTRACK"},
			[]string{"-t", "raw", "-A", "OUTPUT", "-p", network, "--sport", "53", "-j", "NOTRACK"},
			[]string{
				"-t", "mangle", "-A", "PREROUTING", "-i", server, "-p", network, "--sport", "53",
				"-m", "socket", "--transparent", "-j", "MARK", "--set-mark", mark,
			})
	}
	return rules
}
