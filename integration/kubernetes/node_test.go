//go:build kubernetes

package kubernetes

import (
	"testing"

	"github.com/dnstrace/dnstrace/integration/kubernetes/kubenode"
)

// dnsServer is the Service's address that the pods' resolvers ask.
const dnsServer = kubenode.DNS + ":53"

// node is a node whose pods are on a bridge.
type node struct {
	*kubenode.Node
	t testing.TB
}

// bridge puts the node's address and what is outside on one bridge.
const bridge = `ip link add node0 type bridge
ip address add "$IP/24" dev node0
ip link set node0 up
ip route add default via "$IP" dev node0
sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.ipv4.conf.all.route_localnet=1
ip link add outside0 type veth peer name eth0 netns outside
ip link set outside0 master node0 up
ip -n outside address add "$OUTSIDE/24" dev eth0
ip -n outside link set eth0 up
ip -n outside route add default via "$IP"
`

// startNode starts a node with kube-proxy in a mode. It goes with the test.
func startNode(t testing.TB, mode string) *node {
	t.Helper()
	return &node{t: t, Node: kubenode.Start(t, kubenode.Config{
		Network:   bridge,
		ProxyMode: mode,
		Plugins:   "/usr/lib/cni",
		Files: map[string]string{
			"cni/10-bridge.conflist": `{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"isDefaultGateway":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"DIR/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`,
			"outside.corefile": `. {
  bind ` + kubenode.Outside + `
  template IN A example.org {
    answer "{{ .Name }} 60 IN A 192.0.2.80"
  }
  template ANY ANY {
    rcode NXDOMAIN
  }
}
`,
		},
	})}
}
