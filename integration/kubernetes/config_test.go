//go:build kubernetes

package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Addresses of the node; all are in namespaces of its own.
const (
	nodeIP    = "172.31.255.1"
	outsideIP = "172.31.255.53"
	dnsIP     = "10.96.0.10"
	dnsServer = dnsIP + ":53"
)

// configs are the files of the node; DIR and MODE are replaced.
var configs = map[string]string{
	"admin.conf": kubeconfig("admin-token"),
	"node.conf":  kubeconfig("node-token"),
	"tokens.csv": "admin-token,admin,1,system:masters\nnode-token,system:node:node1,2,system:nodes\n",
	"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /` + cgroup + `
containerRuntimeEndpoint: unix://DIR/containerd.sock
clusterDNS: [` + dnsIP + `]
clusterDomain: cluster.local
resolvConf: DIR/resolv.conf
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: DIR/pki/ca.crt}}
authorization: {mode: Webhook}
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: 50Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
volumePluginDir: DIR/volumeplugins
`,
	"proxy.yaml": `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: MODE
clusterCIDR: 10.244.0.0/24
hostnameOverride: node1
clientConnection: {kubeconfig: DIR/admin.conf}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`,
	"containerd.toml": `version = 2
root = "DIR/containerd"
state = "DIR/containerd-state"
[grpc]
  address = "DIR/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pod:latest"
  disable_apparmor = true
  restrict_oom_score_adj = true # where the machine lacks CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "DIR/cni"
`,
	"cni/10-bridge.conflist": `{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"isDefaultGateway":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"DIR/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`,
	"resolv.conf": "nameserver " + outsideIP + "\n",
	"outside.corefile": `. {
  bind ` + outsideIP + `
  template IN A example.org {
    answer "{{ .Name }} 60 IN A 192.0.2.80"
  }
  template ANY ANY {
    rcode NXDOMAIN
  }
}
`,
}

func kubeconfig(token string) string {
	return `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://` + nodeIP + `:6443", certificate-authority: DIR/pki/ca.crt}}]
users: [{name: u, user: {token: ` + token + `}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
}

// writeConfigs writes the files of a node whose kube-proxy works in a mode.
func writeConfigs(t testing.TB, dir, mode string) {
	t.Helper()
	for _, sub := range []string{"pki", "log", "pid", "images", "cni", "volumeplugins"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range configs {
		content = strings.NewReplacer("DIR", dir, "MODE", mode).Replace(content)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writePKI(t, filepath.Join(dir, "pki"))
}
