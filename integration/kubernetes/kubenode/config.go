package kubenode

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Addresses of the node; all are in namespaces of its own.
const (
	IP      = "172.31.255.1"  // of the node
	Outside = "172.31.255.53" // of the resolver that CoreDNS forwards to
	DNS     = "10.96.0.10"    // of the Service kube-dns
)

// configs are the files that every node has; DIR, MODE and PLUGINS are replaced.
var configs = map[string]string{
	"admin.conf": kubeconfig("admin-token"),
	"node.conf":  kubeconfig("node-token"),
	"tokens.csv": "admin-token,admin,1,system:masters\nnode-token,system:node:node1,2,system:nodes\n",
	"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /` + Cgroup + `
containerRuntimeEndpoint: unix://DIR/containerd.sock
clusterDNS: [` + DNS + `]
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
    bin_dir = "PLUGINS"
    conf_dir = "DIR/cni"
`,
	"resolv.conf": "nameserver " + Outside + "\n",
}

func kubeconfig(token string) string {
	return `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://` + IP + `:6443", certificate-authority: DIR/pki/ca.crt}}]
users: [{name: u, user: {token: ` + token + `}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
}

// writeConfigs writes the files of a node.
func writeConfigs(t testing.TB, dir string, c Config) {
	t.Helper()
	for _, sub := range []string{"pki", "log", "pid", "images", "cni", "volumeplugins"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	replace := strings.NewReplacer("DIR", dir, "MODE", c.ProxyMode, "PLUGINS", strings.ReplaceAll(c.Plugins, "DIR", dir))
	Write(t, filepath.Join(dir, "network.sh"), c.Network)
	Write(t, filepath.Join(dir, "addons.sh"), c.Addons)
	files := maps.Clone(configs)
	maps.Copy(files, c.Files)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		Write(t, path, replace.Replace(content))
	}
	writePKI(t, filepath.Join(dir, "pki"))
}
