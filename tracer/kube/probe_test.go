package kube

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("NODE_NAME", node)
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/services") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"services is forbidden"}`))
			return
		}
		if strings.HasSuffix(r.URL.Path, "/pods") && r.URL.Query().Get("fieldSelector") != "spec.nodeName="+node {
			t.Errorf("pods of all nodes are asked for: %s", r.URL)
		}
		kind, group := "PodList", "v1"
		if strings.HasSuffix(r.URL.Path, "/endpointslices") {
			kind, group = "EndpointSliceList", "discovery.k8s.io/v1"
		}
		_, _ = w.Write([]byte(`{"kind":"` + kind + `","apiVersion":"` + group + `","metadata":{"resourceVersion":"1"},"items":[]}`))
	}))
	defer forbidden.Close()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(strings.Replace(kubeconfig, "https://192.0.2.1:6443", forbidden.URL, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		setting string
		ok      bool
		detail  string
	}{
		{Auto, true, "none: this is no pod"},
		{Off, true, "none: off"},
		{"/nonexistent", false, "expected auto, off, or a kubeconfig"},
		{path, false, "services is forbidden"},
	} {
		f := Probe(t.Context(), tc.setting)
		if f.OK != tc.ok || f.Required || !strings.Contains(f.Detail, tc.detail) || !f.OK && f.Remedy == "" {
			t.Errorf("%s: %+v", tc.setting, f)
		}
		if strings.Contains(f.Detail, "pods of node") || strings.Contains(f.Detail, "EndpointSlices:") {
			t.Errorf("%s: what works is said not to: %s", tc.setting, f.Detail)
		}
	}
}
