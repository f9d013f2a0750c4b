package lab

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
)

// setNftables replaces the tables that stand for the Service with those that
// kube-proxy writes in nftables mode.
func (l *Lab) setNftables(v4, v6 []netip.AddrPort) error {
	rules := l.kubeProxyTable("ip", ServiceV4, v4) + l.kubeProxyTable("ip6", ServiceV6, v6)
	return l.Host(Node).firewall("nft", []string{"-f", "-"}, rules)
}

// kubeProxyTable writes the table of one family for the Service
// kube-system/kube-dns, with kube-proxy's names of chains, maps and marks
// (pkg/proxy/nftables/proxier.go, Kubernetes 1.37), in one transaction that
// replaces the one before. What it has for node ports, load balancers and
// Services without endpoints is left out.
func (l *Lab) kubeProxyTable(family string, service netip.AddrPort, endpoints []netip.AddrPort) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	kind := map[string]string{"ip": "ipv4_addr", "ip6": "ipv6_addr"}[family]

	line("add table %s kube-proxy", family)
	line("delete table %s kube-proxy", family)
	line("table %s kube-proxy {", family)
	line(`comment "rules for kube-proxy"`)
	line("set cluster-ips { type %s; elements = { %s }; }", kind, service.Addr())
	line("chain mark-for-masquerade { meta mark set meta mark or 0x4000; }")
	line("chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }")
	var entries []string
	for _, protocol := range []string{"udp", "tcp"} {
		if len(endpoints) == 0 {
			break
		}
		port := "kube-system/kube-dns/" + protocol + "/" + map[string]string{"udp": "dns", "tcp": "dns-tcp"}[protocol]
		var choices []string
		for i, e := range endpoints {
			name := fmt.Sprintf("endpoint-%s-%s__%s/%d", nftHash(port+e.String()), port, strings.ReplaceAll(e.Addr().String(), ":", "."), e.Port())
			choices = append(choices, fmt.Sprintf("%d : goto %s", i, name))
			line("chain %s { %s saddr %s jump mark-for-masquerade; meta l4proto %s dnat to %s; }", name, family, e.Addr(), protocol, e)
		}
		name := fmt.Sprintf("service-%s-%s", nftHash(port), port)
		line("chain %s {", name)
		if l.cfg.MasqueradeAll {
			line("%s daddr %s %s dport %d jump mark-for-masquerade", family, service.Addr(), protocol, service.Port())
		}
		line("numgen random mod %d vmap { %s }", len(endpoints), strings.Join(choices, ", "))
		line("}")
		entries = append(entries, fmt.Sprintf("%s . %s . %d : goto %s", service.Addr(), protocol, service.Port(), name))
	}
	line("map service-ips {")
	line("type %s . inet_proto . inet_service : verdict", kind)
	if len(entries) > 0 {
		line("elements = { %s }", strings.Join(entries, ", "))
	}
	line("}")
	line("chain services { %s daddr . meta l4proto . th dport vmap @service-ips; }", family)
	line("chain cluster-ips-check { %s daddr @cluster-ips reject; }", family)
	line("chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }")
	line("chain nat-output { type nat hook output priority -100; policy accept; jump services; }")
	line("chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }")
	line("chain filter-forward { type filter hook forward priority filter; policy accept; ct state new jump cluster-ips-check; }")
	line("}")
	return b.String()
}

// nftHash is how kube-proxy tells chains apart whose names it had to change.
func nftHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base32.StdEncoding.EncodeToString(sum[:])[:8]
}
