//go:build kubernetes

package kubernetes

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed node.sh
var nodeScript string

// node is a running Kubernetes node.
type node struct {
	t    testing.TB
	dir  string
	bin  string // of the repository
	init int    // PID of its PID 1
}

// startNode starts a node with kube-proxy in a mode, and waits until it is ready. It
// goes with the test.
func startNode(t testing.TB, mode string) *node {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	// Short: it holds unix sockets.
	dir, err := os.MkdirTemp("", "dtk8s-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, bin: bin}
	t.Cleanup(func() { removeAll(t, dir) })
	makeCgroup(t)
	writeConfigs(t, dir, mode)
	n.linkImages()
	n.spawn(mode)
	n.waitReady()
	return n
}

// linkImages gives the node what `make test-kubernetes` built.
func (n *node) linkImages() {
	images, err := filepath.Glob(filepath.Join(n.bin, "images", "*.tar"))
	if err != nil || len(images) == 0 {
		n.t.Fatalf("no images in %s/images: `make test-kubernetes` builds them (%v)", n.bin, err)
	}
	for _, image := range images {
		if err := os.Symlink(image, filepath.Join(n.dir, "images", filepath.Base(image))); err != nil {
			n.t.Fatal(err)
		}
	}
}

// spawn starts PID 1 in namespaces of its own; its end is that of everything in them.
func (n *node) spawn(mode string) {
	log, err := os.Create(filepath.Join(n.dir, "log", "init.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	// The script comes over a pipe that is closed then: it is in no file that could go.
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
		"--propagation", "private", "bash", "-c", nodeScript)
	cmd.Env = append(os.Environ(), "DIR="+n.dir, "BIN="+filepath.Join(n.bin, "kubernetes"), "IP="+nodeIP, "OUTSIDE="+outsideIP, "PROXY_MODE="+mode)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.saveLogs()
		_ = cmd.Process.Kill() // it ends its child, PID 1, by --kill-child
		_ = cmd.Wait()
	})
	n.eventually("the node has a PID 1", 20*time.Second, func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err != nil {
			return err
		}
		n.init, err = strconv.Atoi(strings.TrimSpace(string(children)))
		return err
	})
}

func (n *node) waitReady() {
	started := time.Now()
	n.eventually("the node is ready", 5*time.Minute, func() error {
		if _, err := os.Stat(filepath.Join(n.dir, "up")); err != nil {
			return err
		}
		out, err := n.tryKubectl("get", "node", "node1", "--no-headers")
		if err != nil {
			return err
		}
		if fields := strings.Fields(out); len(fields) < 2 || fields[1] != "Ready" {
			return fmt.Errorf("%s", out)
		}
		_, err = n.tryKubectl("-n", "default", "get", "serviceaccount", "default")
		return err
	})
	n.t.Logf("node ready after %s", time.Since(started).Round(time.Second))
}

// saveLogs keeps the logs of the components where DNSTRACE_LOGS says, if the test
// failed.
func (n *node) saveLogs() {
	to := os.Getenv("DNSTRACE_LOGS")
	if to == "" || !n.t.Failed() {
		return
	}
	for name, args := range map[string][]string{
		"pods":     {"get", "pods", "-A", "-o", "wide"},
		"events":   {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		"tracer":   {"-n", "dnstrace", "logs", "daemonset/dnstrace"},
		"previous": {"-n", "dnstrace", "logs", "daemonset/dnstrace", "--previous"},
	} {
		out, err := n.tryKubectl(args...)
		if err != nil {
			out = err.Error()
		}
		write(n.t, filepath.Join(n.dir, "log", name), out)
	}
	if err := os.CopyFS(filepath.Join(to, strings.ReplaceAll(n.t.Name(), "/", "-")), os.DirFS(filepath.Join(n.dir, "log"))); err != nil {
		n.t.Log(err)
	}
}

// removeAll removes the folder of a node that has ended: its mounts went with it.
func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// exec runs a command inside the node and returns what it prints.
func (n *node) exec(args ...string) (string, error) {
	// Also when the test is over, whose context is not.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(n.init), "-m", "-n", "-p", "-u", "-i"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (n *node) tryKubectl(args ...string) (string, error) {
	return n.exec(append([]string{filepath.Join(n.bin, "kubernetes", "kubectl"), "--kubeconfig", filepath.Join(n.dir, "admin.conf")}, args...)...)
}

// kubectl does so and fails the test if it fails.
func (n *node) kubectl(args ...string) string {
	n.t.Helper()
	out, err := n.tryKubectl(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// eventually waits for what others do.
func (n *node) eventually(what string, within time.Duration, try func() error) {
	n.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
