package lab

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
)

// buildService sends the Service address to CoreDNS.
func (l *Lab) buildService() error {
	endpoint := l.endpoint()
	return l.SetEndpoints(endpoint[:]...)
}

// SetEndpoints replaces the endpoints of the Service, for UDP and TCP; several
// of one family are chosen between at random. As with kube-proxy, connections
// that are tracked already keep the endpoint they have. An endpoint need not
// exist, which makes a stale one.
func (l *Lab) SetEndpoints(endpoints ...netip.AddrPort) error {
	var v4, v6 []netip.AddrPort
	for _, e := range endpoints {
		if e.Addr().Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	if l.cfg.Nftables {
		if err := l.setNftables(v4, v6); err != nil {
			return err
		}
	}
	node := l.Host(Node)
	if err := node.restore("iptables-restore", l.natTable(ServiceV4, PodNetV4, v4)); err != nil {
		return err
	}
	return node.restore("ip6tables-restore", l.natTable(ServiceV6, PodNetV6, v6))
}

// natTable writes the nat table as kube-proxy in iptables mode does for the
// Service kube-system/kube-dns, chain names included.
func (l *Lab) natTable(service netip.AddrPort, pods netip.Prefix, endpoints []netip.AddrPort) string {
	var chains, rules strings.Builder
	chain := func(name string) { fmt.Fprintf(&chains, ":%s - [0:0]\n", name) }
	rule := func(format string, args ...any) { fmt.Fprintf(&rules, "-A "+format+"\n", args...) }

	chains.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n")
	if !l.cfg.Nftables {
		serviceRules(chain, rule, service, endpoints)
	}
	if l.cfg.MasqueradeEgress {
		rule(`POSTROUTING -s %s ! -d %s -j MASQUERADE`, pods, pods)
	}
	return chains.String() + rules.String() + "COMMIT\n"
}

// serviceRules are those of the nat table that stand for the Service.
func serviceRules(chain func(name string), rule func(format string, args ...any), service netip.AddrPort, endpoints []netip.AddrPort) {
	chain("KUBE-SERVICES")
	for _, from := range []string{"PREROUTING", "OUTPUT"} {
		rule(`%s -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`, from)
	}
	for _, protocol := range []string{"udp", "tcp"} {
		port := map[string]string{"udp": "kube-system/kube-dns:dns", "tcp": "kube-system/kube-dns:dns-tcp"}[protocol]
		svc := "KUBE-SVC-" + chainHash(port+protocol)
		chain(svc)
		rule(`KUBE-SERVICES -d %s -p %s -m comment --comment "%s cluster IP" -m %s --dport %d -j %s`,
			service.Addr(), protocol, port, protocol, service.Port(), svc)
		for i, e := range endpoints {
			sep := "KUBE-SEP-" + chainHash(port+protocol+e.String())
			chain(sep)
			odds := ""
			if left := len(endpoints) - i; left > 1 {
				odds = fmt.Sprintf("-m statistic --mode random --probability %.10f", 1/float64(left))
			}
			rule(`%s -m comment --comment "%s -> %s" %s -j %s`, svc, port, e, odds, sep)
			rule(`%s -p %s -m %s -j DNAT --to-destination %s`, sep, protocol, protocol, e)
		}
	}
}

// chainHash is how kube-proxy makes chain names short enough for iptables.
func chainHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}
