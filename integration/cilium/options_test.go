//go:build cilium

package cilium

import (
	"fmt"
	"maps"
)

// options are what Helm writes into cilium-config for kube-proxy replacement with socket
// load balancing and BPF host routing, without what needs Envoy or Hubble.
var options = map[string]string{
	"agent-not-ready-taint-key":       "node.cilium.io/agent-not-ready",
	"auto-direct-node-routes":         "true",
	"bpf-lb-sock":                     "true",
	"bpf-map-dynamic-size-ratio":      "0.0025",
	"bpf-root":                        "/sys/fs/bpf",
	"cgroup-root":                     "/run/cilium/cgroupv2",
	"cluster-id":                      "0",
	"cluster-name":                    "default",
	"cluster-pool-ipv4-cidr":          "10.244.0.0/16",
	"cluster-pool-ipv4-mask-size":     "24",
	"cni-exclusive":                   "true",
	"cni-log-file":                    "/run/cilium/cilium-cni.log",
	"devices":                         "eth0",
	"enable-bpf-clock-probe":          "false",
	"enable-bpf-masquerade":           "true",
	"enable-cilium-endpoint-slice":    "false",
	"enable-endpoint-health-checking": "false",
	"enable-envoy-config":             "false",
	"enable-health-check-nodeport":    "true",
	"enable-health-checking":          "false",
	"enable-hubble":                   "false",
	"enable-ipv4":                     "true",
	"enable-ipv4-masquerade":          "true",
	"enable-ipv6":                     "false",
	"enable-l7-proxy":                 "false",
	"enable-policy":                   "default",
	"identity-allocation-mode":        "crd",
	"ipam":                            "cluster-pool",
	"ipv4-native-routing-cidr":        "10.244.0.0/16",
	"kube-proxy-replacement":          "true",
	"monitor-aggregation":             "medium",
	"preallocate-bpf-maps":            "false",
	"routing-mode":                    "native",
	"service-no-backend-response":     "reject",
	"socket-path":                     "/run/cilium/cilium.sock",
	"state-dir":                       "/run/cilium",
	"write-cni-conf-when-ready":       "DIR/cni/05-cilium.conflist",
}

// variant is one of the ways in which Cilium can carry a packet.
type variant struct {
	name      string
	options   map[string]string // in place of those above
	proxyMode string            // kube-proxy's; empty: Cilium is the service proxy
	names     bool              // the client's queries go through the agent's DNS proxy
	is        mode
	// refusal is where a query ends whose Service has no endpoint.
	refusal refusal
}

// mode is what the agent says that it does.
type mode struct{ replacement, socketLB, hostOnly, intraHost, interHost, masquerading string }

// refusal is a place where a query can end.
type refusal string

const (
	inConnect   refusal = "connect()"     // there is no packet
	atVeth      refusal = "veth"          // a BPF program answers with an ICMP error, or drops it
	inNetfilter refusal = "a REJECT rule" // of kube-proxy
)

var variants = []variant{
	{
		name:    "socket",
		is:      mode{"True", "true", "false", "BPF", "Native", "BPF"},
		refusal: inConnect,
	},
	{
		name:    "veth",
		options: map[string]string{"bpf-lb-sock-hostns-only": "true"},
		is:      mode{"True", "true", "true", "BPF", "Native", "BPF"},
		refusal: atVeth,
	},
	{
		name: "kube-proxy",
		options: map[string]string{
			"bpf-lb-sock": "false", "enable-bpf-masquerade": "false", "enable-host-legacy-routing": "true", "kube-proxy-replacement": "false",
		},
		proxyMode: "iptables",
		is:        mode{"False", "false", "false", "Legacy", "Native", "iptables"},
		// Cilium balances Services of the cluster for pods all the same.
		refusal: atVeth,
	},
	{
		name:    "vxlan",
		options: map[string]string{"auto-direct-node-routes": "false", "ipv4-native-routing-cidr": "", "routing-mode": "tunnel", "tunnel-protocol": "vxlan"},
		is:      mode{"True", "true", "false", "BPF", "Tunnel", "BPF"},
		refusal: inConnect,
	},
	{
		name: "names",
		options: map[string]string{
			"dnsproxy-enable-transparent-mode": "true", "dnsproxy-socket-linger-timeout": "10", "enable-l7-proxy": "true", "external-envoy-proxy": "true",
			"tofqdns-dns-reject-response-code": "refused", "tofqdns-enable-dns-compression": "true", "tofqdns-proxy-response-max-delay": "100ms",
		},
		names:   true,
		is:      mode{"True", "true", "false", "BPF", "Native", "BPF"},
		refusal: inConnect,
	},
}

// files are the agent's options, one a file.
func (v variant) files() map[string]string {
	all := maps.Clone(options)
	maps.Copy(all, v.options)
	files := map[string]string{}
	for name, value := range all {
		if value != "" {
			files["cilium/"+name] = value
		}
	}
	return files
}

// agentStatus is what the agent's API says of how it works.
type agentStatus struct {
	KubeProxyReplacement struct {
		Mode     string
		Features struct {
			BPFSocketLBHostnsOnly bool
			SocketLB              struct{ Enabled bool }
		}
	} `json:"kube-proxy-replacement"`
	Routing struct {
		IntraHost string `json:"intra-host-routing-mode"`
		InterHost string `json:"inter-host-routing-mode"`
	}
	Masquerading struct{ Mode string }
}

// worksAs tells whether the agent works in the way it is meant to: it falls back where the
// kernel lacks something.
func (n *node) worksAs(want mode) error {
	var s agentStatus
	if err := n.agent("/v1/healthz", &s); err != nil {
		return err
	}
	k := s.KubeProxyReplacement
	got := mode{k.Mode, fmt.Sprint(k.Features.SocketLB.Enabled), fmt.Sprint(k.Features.BPFSocketLBHostnsOnly), s.Routing.IntraHost, s.Routing.InterHost, s.Masquerading.Mode}
	if got != want {
		return fmt.Errorf("it works as %+v, expected %+v", got, want)
	}
	return nil
}
