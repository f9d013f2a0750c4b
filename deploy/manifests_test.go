// Package deploy checks what the manifests here give their containers.
package deploy

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// allowed is what a container may have, by its image without the tag.
var allowed = map[string]map[string]any{
	"localhost/coredns": {
		"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"},
		"capabilities": map[string]any{"drop": []any{"ALL"}, "add": []any{"NET_BIND_SERVICE"}},
	},
	"localhost/dnstrace": {
		"runAsUser":                0,
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"},
		"capabilities": map[string]any{"drop": []any{"ALL"}, "add": []any{"BPF", "PERFMON", "SYSLOG"}},
	},
}

// pods returns the specifications of pods in the manifests, by file.
func pods(t *testing.T) map[string][]map[string]any {
	t.Helper()
	found := map[string][]map[string]any{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for documents := yaml.NewDecoder(f); ; {
			var document map[string]any
			if err := documents.Decode(&document); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			spec, _ := document["spec"].(map[string]any)
			template, _ := spec["template"].(map[string]any)
			if pod, ok := template["spec"].(map[string]any); ok {
				found[path] = append(found[path], pod)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Each container has what it needs, and nothing else; none shares a namespace of the
// node, but for the tracer its process ids, and of the node's folders they mount what the
// documentation names.
func TestContainersHaveWhatTheyNeed(t *testing.T) {
	seen := map[string]bool{}
	for path, list := range pods(t) {
		for _, pod := range list {
			for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
				if tracer := path == filepath.Join("base", "daemonset.yaml"); pod[key] != nil && (key != "hostPID" || !tracer) {
					t.Errorf("%s: %s", path, key)
				}
			}
			volumes, _ := pod["volumes"].([]any)
			for _, v := range volumes {
				host, _ := v.(map[string]any)["hostPath"].(map[string]any)
				if host != nil && !slices.Contains([]any{"/run/dnstrace", "/run/dnstrace-api", "/sys/fs/cgroup"}, host["path"]) {
					t.Errorf("%s mounts %v", path, host["path"])
				}
			}
			containers, _ := pod["containers"].([]any)
			for _, c := range containers {
				container, _ := c.(map[string]any)
				image, _, _ := strings.Cut(container["image"].(string), ":")
				seen[image] = true
				if got, want := container["securityContext"], any(allowed[image]); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %s has %v, expected %v", path, image, got, want)
				}
			}
		}
	}
	if len(seen) != len(allowed) {
		t.Errorf("seen %v", seen)
	}
}

// The image of CoreDNS is made for the user that the manifests name.
func TestImageHasTheUser(t *testing.T) {
	content, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "\nIMAGE_coredns := -user 65532:65532 -net-bind-service\n") {
		t.Error("the Makefile makes CoreDNS's image for another user, or without the file capability")
	}
}
