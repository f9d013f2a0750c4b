// Package deploy_test looks at what the manifests have in common.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// pod is what is looked at of a pod's template.
type pod struct {
	HostPID         bool `yaml:"hostPID"`
	SecurityContext struct {
		SupplementalGroups []int `yaml:"supplementalGroups"`
	} `yaml:"securityContext"`
	Containers []struct {
		Args         []string
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	Volumes []struct {
		Name     string
		HostPath struct{ Path string } `yaml:"hostPath"`
	}
}

// podOf returns the pod template in a file of manifests, or of a patch.
func podOf(t *testing.T, file string) pod {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var manifest struct {
			Spec struct{ Template struct{ Spec pod } }
		}
		err := d.Decode(&manifest)
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s has no pod", file)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if p := manifest.Spec.Template.Spec; len(p.Containers) == 1 {
			return p
		}
	}
}

// onNode returns where on the node a path of a pod's container is; empty: not there.
func (p *pod) onNode(at string) string {
	longest, found := "", ""
	for _, m := range p.Containers[0].VolumeMounts {
		below, inside := strings.CutPrefix(at+"/", m.MountPath+"/")
		if !inside || len(m.MountPath) < len(longest) {
			continue
		}
		for _, v := range p.Volumes {
			if v.Name == m.Name && v.HostPath.Path != "" {
				longest, found = m.MountPath, path.Join(v.HostPath.Path, below)
			}
		}
	}
	return found
}

// flag returns the value of an argument of a pod's container, or what it is by default.
func (p *pod) flag(name, byDefault string) string {
	for _, a := range p.Containers[0].Args {
		if value, found := strings.CutPrefix(a, "--"+name+"="); found {
			return value
		}
	}
	return byDefault
}

// The tracer's record socket is where CoreDNS's pods look for it, and nothing else of the
// tracer's is in a folder of the node that they mount, nor in one above or below it.
func TestCoreDNSReachesTheRecordSocketOnly(t *testing.T) {
	tracer := podOf(t, "base/daemonset.yaml")
	const socket = "/run/dnstrace/records.sock" // of the Corefiles
	records := tracer.onNode(tracer.flag("listen", socket))
	api := tracer.onNode(tracer.flag("api", "/run/dnstrace/api.sock"))
	if records == "" || api == "" {
		t.Fatalf("records at %q, API at %q", records, api)
	}
	for _, file := range []string{"coredns/deployment-patch.yaml", "node-local/node-local.yaml"} {
		coredns := podOf(t, file)
		if got := coredns.onNode(socket); got != records {
			t.Errorf("%s looks for the record socket at %q, and it is at %q", file, got, records)
		}
		for _, v := range coredns.Volumes {
			if host := v.HostPath.Path; host != "" && (within(api, host) || within(host, path.Dir(api))) {
				t.Errorf("%s mounts %s of the node, and the API is at %s", file, host, api)
			}
		}
	}
}

func within(at, dir string) bool { return strings.HasPrefix(at+"/", dir+"/") }

// What the tracer needs to know whose a record is, and to let CoreDNS's group write.
func TestTracerKnowsWhoSendsRecords(t *testing.T) {
	tracer := podOf(t, "base/daemonset.yaml")
	if !tracer.HostPID || !slices.Contains(tracer.SecurityContext.SupplementalGroups, 65532) {
		t.Errorf("hostPID %v, groups %v", tracer.HostPID, tracer.SecurityContext.SupplementalGroups)
	}
}
