package integration

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// resolver is a program with a stub resolver of its own, which resolves the name
// in its argument.
type resolver struct{ name, path string }

// buildResolver builds one of the stub resolvers that containers have: glibc's,
// musl's (Alpine), and Go's.
func buildResolver(t *testing.T, name string) resolver {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	var build *exec.Cmd
	switch name {
	case "glibc":
		build = exec.Command("gcc", "-O1", "-o", path, "testdata/gai.c")
	case "musl":
		build = exec.Command("musl-gcc", "-static", "-O1", "-o", path, "testdata/gai.c")
	case "go":
		build = exec.Command("go", "build", "-tags", "netgo", "-o", path, "./testdata/goresolve")
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v (of the Debian packages gcc and musl-tools)\n%s", build, err, out)
	}
	return resolver{name, path}
}

// kubernetesResolvConf is what the kubelet writes for a pod of a namespace.
func kubernetesResolvConf(namespace, options string) string {
	return fmt.Sprintf("nameserver %s\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 %s\n",
		lab.ServiceV4.Addr(), namespace, options)
}

// resolve runs a resolver in a pod to its end.
func (r *faultRig) resolve(pod string, with resolver, name, resolvConf string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := r.Run(ctx, lab.Spec{Name: with.name, Host: pod, Path: with.path, Args: []string{name}, ResolvConf: resolvConf}); err != nil {
		r.t.Fatal(err)
	}
}

// resolveBefore resolves another name, so that the pod knows the link address of its
// gateway: of two threads that ask at once, as Go's resolver does, one may send what
// the other's query waited for, and whose that was is then not proven.
func (r *faultRig) resolveBefore(pod string, with resolver) {
	r.t.Helper()
	r.resolve(pod, with, "www.before.test.", "nameserver "+lab.ServiceV4.Addr().String()+"\n")
}
