package lab

import (
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What leads responses to the impersonator's sockets.
const (
	impersonatorMark     = 0x201
	impersonatorTable    = 2005
	impersonatorPriority = 10
)

// Impersonate starts a proxy on the node, at the node's address on the bridge, for one
// client pod: it asks the CoreDNS pod over UDP from the client's own address and port and
// with the client's ID, and passes the response on. So one query and its response are two
// exchanges, which differ in the server's address alone, without any translation. IPv4
// only.
func (l *Lab) Impersonate(client string) (at netip.AddrPort, err error) {
	node, server := l.Host(Node), l.Host(CoreDNS)
	at = netip.AddrPortFrom(gatewayV4, 53)
	if err := l.leadToImpersonator(l.Host(client)); err != nil {
		return at, err
	}
	p := &proxy{host: node, family: families()[0], open: make(map[io.Closer]bool)}
	err = node.Do(func() (err error) {
		p.queries, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return at, fmt.Errorf("proxy on %s in %s: %w", at, node.Name, err)
	}
	p.keep(p.queries)
	p.wait.Go(func() { p.impersonate(netip.AddrPortFrom(server.V4, 53)) })
	l.atClose(p.end)
	return at, nil
}

// leadToImpersonator sends the server's responses to a client over the node, and there
// to the sockets that have the client's address.
func (l *Lab) leadToImpersonator(client *Host) error {
	node, server := l.Host(Node), l.Host(CoreDNS)
	if err := server.route(netip.PrefixFrom(client.V4, 32), gatewayV4); err != nil {
		return err
	}
	err := node.sysctl(setting{"net/ipv4/conf/all/send_redirects", "0"}, setting{"net/ipv4/conf/" + bridgeName + "/send_redirects", "0"})
	if err != nil {
		return err
	}
	err = node.iptables("iptables", "-t", "mangle", "-A", "PREROUTING", "-i", bridgeName, "-s", server.V4.String(), "-p", "udp", "--sport", "53",
		"-m", "socket", "--transparent", "-j", "MARK", "--set-mark", fmt.Sprintf("%#x", impersonatorMark))
	if err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, impersonatorMark, impersonatorTable, impersonatorPriority
	if err := node.ns.links.RuleAdd(rule); err != nil {
		return fmt.Errorf("rule %v in %s: %w", rule, node.Name, err)
	}
	lo, err := node.ns.links.LinkByName("lo")
	if err != nil {
		return err
	}
	local := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(defaultRouteV4), Table: impersonatorTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if err := node.ns.links.RouteAdd(local); err != nil {
		return fmt.Errorf("local route in %s: %w", node.Name, err)
	}
	return nil
}

// impersonate takes queries until the socket is closed.
func (p *proxy) impersonate(server netip.AddrPort) {
	query := make([]byte, 65535)
	for {
		n, client, err := p.queries.ReadFromUDPAddrPort(query)
		if err != nil {
			return
		}
		message := append([]byte(nil), query[:n]...)
		p.wait.Go(func() {
			if response := p.askAs(client, server, message); response != nil {
				// A client that is gone is no concern of the proxy's.
				_, _ = p.queries.WriteToUDPAddrPort(response, client)
			}
		})
	}
}
