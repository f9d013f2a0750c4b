package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func TestFind(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	good := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(good, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ setting, host, why, err string }{
		{setting: Off, why: "off"},
		{setting: Auto, why: "name a kubeconfig"},
		{setting: good, host: "https://192.0.2.1:6443"},
		{setting: "/nonexistent/config", err: "expected auto, off, or a kubeconfig"},
	} {
		cfg, why, err := Find(tc.setting)
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: error %v, expected %q", tc.setting, err, tc.err)
		case tc.err == "" && err != nil:
			t.Errorf("%s: %v", tc.setting, err)
		case (cfg != nil) != (tc.host != "") || cfg != nil && cfg.Host != tc.host:
			t.Errorf("%s: %v", tc.setting, cfg)
		case !strings.Contains(why, tc.why):
			t.Errorf("%s: why %q, expected %q", tc.setting, why, tc.why)
		}
	}
}

func TestNodeName(t *testing.T) {
	t.Setenv("NODE_NAME", "node7")
	if name, err := NodeName(); err != nil || name != "node7" {
		t.Errorf("%q, %v", name, err)
	}
	t.Setenv("NODE_NAME", "")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if name, err := NodeName(); err != nil || name != strings.ToLower(host) {
		t.Errorf("%q, %v", name, err)
	}
}
